package gate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"lastcall/admission/gate"
)

// patience is how long a test waits for an expected event.
const patience = 60 * time.Second

// fakeSidecar is a fake of a pod's sidecar.
type fakeSidecar struct {
	mu     sync.Mutex
	phase  string
	held   string // the registries in /status, as JSON
	token  string
	calls  []string
	server *httptest.Server
	// called receives a value for each call that changes something.
	called chan string
}

func newSidecar(t *testing.T) *fakeSidecar {
	s := &fakeSidecar{phase: "serving", called: make(chan string, 1000)}
	s.server = httptest.NewServer(s)
	t.Cleanup(s.server.Close)
	return s
}

func (s *fakeSidecar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := r.Method + " " + r.URL.RequestURI()
	if r.Method != http.MethodGet {
		if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
			http.Error(w, `{"error":"no"}`, http.StatusUnauthorized)
			return
		}
		s.calls = append(s.calls, call)
		s.called <- call
	}
	switch call {
	case "POST /drain?budget=none":
		if s.phase == "serving" || s.phase == "expired" {
			s.phase = "draining"
		}
		w.WriteHeader(http.StatusAccepted)
	case "DELETE /drain":
		if s.phase == "serving" {
			w.WriteHeader(http.StatusConflict)
		}
		s.phase = "serving"
	case "GET /status":
	default:
		http.NotFound(w, r)
		return
	}
	fmt.Fprintf(w, `{"phase":%q,"registries":[%s]}`, s.phase, s.held)
}

func (s *fakeSidecar) become(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = phase
}

// drains waits until the sidecar is asked to drain.
func (s *fakeSidecar) drains(t *testing.T) { t.Helper(); s.is(t, "POST /drain?budget=none") }

func (s *fakeSidecar) is(t *testing.T, want string) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case call := <-s.called:
			if call == want {
				return
			}
		case <-late:
			t.Fatalf("no %s", want)
		}
	}
}

// count returns the number of these calls of the sidecar.
func (s *fakeSidecar) count(call string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if c == call {
			n++
		}
	}
	return n
}

// at sets the pod's sidecar port to the fake's.
func (s *fakeSidecar) at(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	_, port, err := net.SplitHostPort(s.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	pod.Spec.InitContainers[0].Ports = []corev1.ContainerPort{{Name: "lastcall", ContainerPort: int32(n)}}
	return pod
}

// world is a gate with a fake API server.
type world struct {
	*gate.Gate
	client  *fake.Clientset
	handler http.Handler
	events  *record.FakeRecorder
	stop    context.CancelFunc
}

func start(t *testing.T, change func(*gate.Config), objects ...runtime.Object) *world {
	t.Helper()
	return join(t, fake.NewClientset(objects...), change)
}

// join starts another replica.
func join(t *testing.T, client *fake.Clientset, change func(*gate.Config)) *world {
	t.Helper()
	w := &world{client: client, events: record.NewFakeRecorder(1000)}
	config := gate.Config{
		Client: client, Own: own, Never: []string{"lastcall-system"}, Gone: time.Hour,
		Events: w.events, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&config)
	}
	w.Gate = gate.New(config)
	ctx, stop := context.WithCancel(t.Context())
	w.stop = stop
	w.handler = w.Webhook(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the gate knows all pods", w.Synced)
	return w
}

// eventually waits until holds returns true.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	end := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-end:
			t.Fatalf("not: %s", what)
		case <-tick.C:
		}
	}
}

// pod returns the current pod, or nil if there is none.
func (w *world) pod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pod, err := w.client.CoreV1().Pods("team").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return pod
}

// actions returns the number of calls of the API server of a kind, such as
// "delete pods".
func (w *world) actions(kind string) (n int) {
	for _, a := range w.client.Actions() {
		name := a.GetVerb() + " " + a.GetResource().Resource
		if sub := a.GetSubresource(); sub != "" {
			name += "/" + sub
		}
		if name == kind {
			n++
		}
	}
	return n
}

// asks calls the webhook for a deletion of the current pod.
func (w *world) asks(t *testing.T, user, name string, options *metav1.DeleteOptions) *admissionv1.AdmissionResponse {
	t.Helper()
	pod := w.pod(t, name)
	return w.review(t, &admissionv1.AdmissionRequest{
		Operation: admissionv1.Delete, Name: name, OldObject: raw(t, pod), Options: raw(t, options),
		UserInfo: authenticationv1.UserInfo{Username: user},
	})
}

// evicts calls the webhook for an eviction of the pod.
func (w *world) evicts(t *testing.T, user, name string) *admissionv1.AdmissionResponse {
	t.Helper()
	return w.review(t, &admissionv1.AdmissionRequest{
		Operation: admissionv1.Create, SubResource: "eviction", Name: name,
		Object:   raw(t, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "team"}}),
		UserInfo: authenticationv1.UserInfo{Username: user},
	})
}

func (w *world) review(t *testing.T, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	r.UID, r.Namespace = "u", "team"
	r.Resource = metav1.GroupVersionResource{Version: "v1", Resource: "pods"}
	body := raw(t, admissionv1.AdmissionReview{Request: r}).Raw
	answer := httptest.NewRecorder()
	w.handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/gate", bytes.NewReader(body)))
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(answer.Body.Bytes(), &review); err != nil || review.Response == nil {
		t.Fatalf("answered %d: %s", answer.Code, answer.Body)
	}
	return review.Response
}

func raw(t *testing.T, object any) runtime.RawExtension {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return runtime.RawExtension{Raw: text}
}
