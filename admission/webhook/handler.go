// Package webhook serves the injection and the checks to an API server.
//
// Both handlers answer an AdmissionReview of admission.k8s.io/v1, change nothing
// outside of it, and can be called any number of times at once.
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
	// The API server cuts warnings off beyond this; see the documentation of
	// admission webhooks.
	longestWarning = 256
	mostWarnings   = 12
)

// Handler makes the handlers.
type Handler struct {
	// Parameters reads the injection's parameters. It is called for each pod. Nil:
	// there is no injection.
	Parameters func() (inject.Parameters, error)
	// Never are namespaces whose pods stay as they are.
	Never []string
	// Minor is the cluster's minor version, 28 for 1.28; 0 if it is not known.
	Minor int
	// Gate answers at /gate, and Metrics writes what /metrics returns; nil: there is
	// no such call.
	Gate    http.Handler
	Metrics func(io.Writer)
	// Ready returns why the API server is not to call yet; nil: it may.
	Ready func() error
	Log   *slog.Logger
}

// Inject answers reviews of pods that are being created with the sidecar. If the
// parameters cannot be read, the pod is refused: it asked for a sidecar.
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

// Check allows everything, and returns what check finds as warnings, which
// kubectl prints.
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
			// The fix comes first: the rest may be cut off.
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

// limit keeps warnings within what the API server passes on.
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

// review makes a handler of what answers one request.
func (h *Handler) review(answer func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse) http.Handler {
	return review.Handler(h.Log, func(_ context.Context, request *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return answer(request)
	})
}
