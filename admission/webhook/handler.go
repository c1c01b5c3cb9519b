// Package webhook serves the injection and the checks to an API server.
//
// Both handlers answer an AdmissionReview of admission.k8s.io/v1, have no side
// effects, and are safe for concurrent use.
package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lastcall/admission/check"
	"lastcall/admission/inject"
	"lastcall/admission/internal/review"
)

const (
	// The API server truncates longer warnings; see the documentation of admission
	// webhooks.
	longestWarning = 256
	mostWarnings   = 12
)

// Handler holds the configuration of the HTTP handlers.
type Handler struct {
	// Parameters reads the injection's parameters. It is called for each pod. If it
	// is nil, there is no injection.
	Parameters func() (inject.Parameters, error)
	// Never lists namespaces whose pods are never changed or checked.
	Never []string
	// Minor is the cluster's minor version, such as 28 for 1.28; 0 if it is unknown.
	Minor int
	// Gate handles /gate, and Metrics writes the response of /metrics. If one is
	// nil, there is no such path.
	Gate    http.Handler
	Metrics func(io.Writer)
	// Ready returns why the server is not ready for calls, or nil if it is ready. It
	// may be nil.
	Ready func() error
	Log   *slog.Logger
}

// Inject returns the handler that adds the sidecar to pods that are being created. If
// the parameters cannot be read, it rejects the pod, which requested a sidecar.
func (h *Handler) Inject() http.Handler {
	return h.review(func(request *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		response := &admissionv1.AdmissionResponse{Allowed: true}
		if request.Operation != admissionv1.Create || request.Resource.Resource != "pods" || slices.Contains(h.Never, request.Namespace) {
			return response
		}
		if h.Minor > 0 && h.Minor < check.FirstNative {
			response.Warnings = limit([]string{fmt.Sprintf("lastcall: no sidecar was added: Kubernetes 1.%d has no native sidecars, they came with 1.%d. Add it as an ordinary container, as in deploy/deployment.yaml", h.Minor, check.FirstNative)})
			return response
		}
		var pod corev1.Pod
		if err := json.Unmarshal(request.Object.Raw, &pod); err != nil {
			return refuse(http.StatusBadRequest, fmt.Sprintf("lastcall: reading the pod: %v", err))
		}
		parameters, err := h.Parameters()
		if err != nil {
			h.Log.Error("reading the injection's parameters failed: pods with the label are refused", "error", err.Error())
			return refuse(http.StatusInternalServerError, fmt.Sprintf("lastcall: the sidecar cannot be added: %v", err))
		}
		changed, warnings := inject.Pod(&pod, parameters)
		patch, err := diff(&pod, changed)
		if err != nil {
			return refuse(http.StatusInternalServerError, fmt.Sprintf("lastcall: %v", err))
		}
		if patch != nil {
			kind := admissionv1.PatchTypeJSONPatch
			response.Patch, response.PatchType = patch, &kind
		}
		response.Warnings = limit(warnings)
		return response
	})
}

// Check returns the handler that checks objects. It allows everything, and returns the
// findings as warnings, which kubectl prints.
func (h *Handler) Check() http.Handler {
	return h.review(func(request *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		response := &admissionv1.AdmissionResponse{Allowed: true}
		object, err := check.FromJSON(request.Object.Raw)
		if err != nil || slices.Contains(h.Never, request.Namespace) {
			return response // a deletion has no object
		}
		var parameters inject.Parameters
		if h.Parameters != nil {
			if parameters, err = h.Parameters(); err != nil {
				parameters = inject.Parameters{}
			}
		}
		var warnings []string
		for _, finding := range check.Objects([]check.Object{object}, check.Options{Parameters: parameters, Minor: h.Minor}) {
			// The fix comes first, because a long warning is truncated.
			fix := strings.ReplaceAll(finding.Fix, "\n", ", ")
			warnings = append(warnings, fmt.Sprintf("lastcall: %s: %s (%s)", finding.Rule, fix, finding.Message))
		}
		response.Warnings = limit(warnings)
		return response
	})
}

func refuse(code int32, message string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{Code: code, Message: message}}
}

// limit shortens warnings to the number and length that the API server passes on. It
// changes the slice.
func limit(warnings []string) []string {
	if len(warnings) > mostWarnings {
		more := fmt.Sprintf("lastcall: and %d more: `lastcall-admission check` lists them all", len(warnings)-mostWarnings+1)
		warnings = append(warnings[:mostWarnings-1:mostWarnings-1], more)
	}
	for i, text := range warnings {
		if runes := []rune(text); len(text) > longestWarning {
			for len(string(runes)) > longestWarning-len("…") {
				runes = runes[:len(runes)-1]
			}
			warnings[i] = string(runes) + "…"
		}
	}
	return warnings
}

// review returns an HTTP handler that calls answer for each AdmissionReview.
func (h *Handler) review(answer func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse) http.Handler {
	return review.Handler(h.Log, func(_ context.Context, request *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return answer(request)
	})
}
