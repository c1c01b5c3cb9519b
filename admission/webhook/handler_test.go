package webhook_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"lastcall/admission/inject"
	"lastcall/admission/internal/corpus"
	"lastcall/admission/webhook"
)

const corpusFolder = "../inject/testdata"

// The patched pod equals the result of inject.Pod for each pod of the corpus.
func TestPatch(t *testing.T) {
	for _, c := range corpus.Read(t, corpusFolder) {
		t.Run(c.Name, func(t *testing.T) {
			text := marshal(t, c.Pod)
			response := ask(t, handler(c.Parameters, nil), "/inject", podReview("team", text))
			want, warnings := inject.Pod(c.Pod, c.Parameters)
			if !response.Allowed || len(response.Warnings) != len(warnings) {
				t.Errorf("allowed %v with %q", response.Allowed, response.Warnings)
			}
			if response.Patch != nil {
				patch, err := jsonpatch.DecodePatch(response.Patch)
				if err != nil {
					t.Fatal(err)
				}
				if text, err = patch.Apply(text); err != nil {
					t.Fatalf("%v\n%s", err, response.Patch)
				}
			}
			var got corev1.Pod
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatal(err)
			}
			if !equality.Semantic.DeepEqual(&got, want) {
				t.Errorf("the patch makes\n%s\nof the pod, want\n%s", text, marshal(t, want))
			}
		})
	}
}

// The patch does not remove a field that this program's types do not have.
func TestUnknownFieldsStay(t *testing.T) {
	c := plain(t)
	text := bytes.Replace(marshal(t, c.Pod), []byte(`"spec":{`), []byte(`"spec":{"fieldOfTomorrow":{"a":1},`), 1)
	response := ask(t, handler(c.Parameters, nil), "/inject", podReview("team", text))
	patch, err := jsonpatch.DecodePatch(response.Patch)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = patch.Apply(text); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(`"fieldOfTomorrow":{"a":1}`)) {
		t.Errorf("it is gone: %s", text)
	}
}

// Pods in excluded namespaces, and other requests, are not changed.
func TestLeftAlone(t *testing.T) {
	c := plain(t)
	for name, request := range map[string]*admissionv1.AdmissionRequest{
		"kube-system": podReview("kube-system", marshal(t, c.Pod)),
		"its own":     podReview("lastcall-system", marshal(t, c.Pod)),
		"an update":   {Operation: admissionv1.Update, Resource: podReview("", nil).Resource, Namespace: "team", Object: runtime.RawExtension{Raw: marshal(t, c.Pod)}},
	} {
		response := ask(t, handler(c.Parameters, nil), "/inject", request)
		if !response.Allowed || response.Patch != nil || string(response.UID) != "u" && name != "an update" {
			t.Errorf("%s: %+v", name, response)
		}
	}
}

// Without parameters, a pod that requests the sidecar is rejected, with the reason.
func TestNoParameters(t *testing.T) {
	h := handler(inject.Parameters{}, errors.New("there is no image"))
	response := ask(t, h, "/inject", podReview("team", marshal(t, plain(t).Pod)))
	if response.Allowed || !strings.Contains(response.Result.Message, "there is no image") {
		t.Errorf("%+v", response)
	}
	answer := httptest.NewRecorder()
	h.Mux().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/readyz", http.NoBody))
	if answer.Code != http.StatusServiceUnavailable {
		t.Errorf("/readyz is %d", answer.Code)
	}
}

// No sidecar is added in a cluster without native sidecars: the pod would wait forever.
func TestOldCluster(t *testing.T) {
	h := handler(plain(t).Parameters, nil)
	for minor, added := range map[int]bool{28: false, 29: true, 0: true} {
		h.Minor = minor
		response := ask(t, h, "/inject", podReview("team", marshal(t, plain(t).Pod)))
		if !response.Allowed || (response.Patch != nil) != added || (len(response.Warnings) == 0) != added {
			t.Errorf("1.%d: patch %s, warnings %q", minor, response.Patch, response.Warnings)
		}
	}
}

// The findings of a check are returned as warnings, and nothing is rejected.
func TestWarnings(t *testing.T) {
	deployment := fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},
	  "spec":{"replicas":1,"strategy":{"type":"Recreate"},"template":{"metadata":%s,"spec":{"terminationGracePeriodSeconds":5,"containers":[{"name":"app"}]}}}}`,
		`{"labels":{"lastcall/inject":"true"},"annotations":{"lastcall/REGISTRIES":"eureka"}}`)
	h := handler(plain(t).Parameters, nil)
	request := &admissionv1.AdmissionRequest{UID: "u", Namespace: "team", Object: runtime.RawExtension{Raw: []byte(deployment)}}
	response := ask(t, h, "/check", request)
	for _, want := range []string{"terminationGracePeriodSeconds: 6", "minReadySeconds: 60", "Recreate"} {
		if !strings.Contains(strings.Join(response.Warnings, "\n"), want) {
			t.Errorf("no warning has %q: %q", want, response.Warnings)
		}
	}
	for _, warning := range response.Warnings {
		if len(warning) > 256 {
			t.Errorf("%d bytes: %s", len(warning), warning)
		}
	}
	if !response.Allowed {
		t.Error("it is refused")
	}
	request.Object.Raw = nil // a deletion
	if response := ask(t, h, "/check", request); !response.Allowed || response.Warnings != nil {
		t.Errorf("%+v", response)
	}
}

// A request that is not an AdmissionReview is rejected.
func TestNoReview(t *testing.T) {
	for body, want := range map[string]int{
		"nonsense":                 http.StatusBadRequest,
		"{}":                       http.StatusBadRequest,
		strings.Repeat("x", 9<<20): http.StatusBadRequest,
	} {
		answer := httptest.NewRecorder()
		handler(inject.Parameters{}, nil).Mux().ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/inject", strings.NewReader(body)))
		if answer.Code != want {
			t.Errorf("%.20s: %d", body, answer.Code)
		}
	}
}

func handler(p inject.Parameters, err error) *webhook.Handler {
	return &webhook.Handler{
		Parameters: func() (inject.Parameters, error) { return p, err },
		Never:      []string{"kube-system", "lastcall-system"},
		Log:        slog.New(slog.DiscardHandler),
	}
}

func plain(t *testing.T) corpus.Case {
	t.Helper()
	for _, c := range corpus.Read(t, corpusFolder) {
		if c.Name == "plain" {
			return c
		}
	}
	t.Fatal("the corpus has no pod plain")
	return corpus.Case{}
}

func podReview(namespace string, pod []byte) *admissionv1.AdmissionRequest {
	return &admissionv1.AdmissionRequest{
		UID: "u", Operation: admissionv1.Create, Namespace: namespace,
		Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		Object:   runtime.RawExtension{Raw: pod},
	}
}

func ask(t *testing.T, h *webhook.Handler, path string, request *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	answer := httptest.NewRecorder()
	h.Mux().ServeHTTP(answer, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(marshal(t, admissionv1.AdmissionReview{Request: request}))))
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(answer.Body.Bytes(), &review); err != nil || review.Response == nil {
		t.Fatalf("%s is answered %d: %s", path, answer.Code, answer.Body)
	}
	return review.Response
}

func marshal(t *testing.T, object any) []byte {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
