// Package review reads and answers AdmissionReviews of admission.k8s.io/v1.
package review

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// largest is the maximum size of a request in bytes. The API server accepts objects of
// up to 3 MiB, and a review may hold two.
const largest = 8 << 20

var errNoRequest = errors.New("the review holds no request")

// Handler returns an HTTP handler that calls answer for each AdmissionReview. The
// context ends with the API server's call.
func Handler(log *slog.Logger, answer func(context.Context, *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "an AdmissionReview must be sent by POST", http.StatusMethodNotAllowed)
			return
		}
		var review admissionv1.AdmissionReview
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largest))
		if err == nil {
			err = json.Unmarshal(body, &review)
		}
		if err == nil && review.Request == nil {
			err = errNoRequest
		}
		if err != nil {
			http.Error(w, fmt.Sprintf("reading the AdmissionReview: %v", err), http.StatusBadRequest)
			return
		}
		response := answer(r.Context(), review.Request)
		response.UID = review.Request.UID
		w.Header().Set("Content-Type", "application/json")
		err = json.NewEncoder(w).Encode(admissionv1.AdmissionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
			Response: response,
		})
		if err != nil {
			log.Warn("answering the API server failed", "error", err.Error())
		}
	})
}
