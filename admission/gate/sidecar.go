package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// largestStatus is the maximum number of bytes that are read of a sidecar's response.
const largestStatus = 1 << 20

// sidecars is a client for the HTTP API of sidecars.
type sidecars struct{ client *http.Client }

// standing holds the fields of a sidecar's status that the gate needs.
type standing struct {
	Phase      string     `json:"phase"`
	Deadline   *time.Time `json:"deadline"`
	WaitingFor string     `json:"waiting_for"`
	Registries []struct {
		Name   string `json:"name"`
		State  string `json:"state"`
		GaveUp string `json:"gave_up"`
	} `json:"registries"`
}

// drained returns the reason to release a pod whose drain has ended. The reason names
// a registry that could not withdraw the pod: there is nothing more to wait for, but
// the registry may still send clients to the pod.
func (s *standing) drained() string {
	for _, r := range s.Registries {
		switch {
		case r.GaveUp != "":
			return fmt.Sprintf("drained, but not withdrawn from %s: %s", r.Name, r.GaveUp)
		case r.State == "not found":
			return fmt.Sprintf("drained, but not withdrawn from %s: it was never found there", r.Name)
		}
	}
	return "drained"
}

// refused is the error for a sidecar that answers with another status code than
// expected.
type refused struct {
	call    string
	code    int
	message string
}

func (e *refused) Error() string {
	return fmt.Sprintf("%s was answered %d: %s", e.call, e.code, e.message)
}

func newSidecars() *sidecars {
	return &sidecars{&http.Client{
		Timeout: sidecarCall,
		Transport: &http.Transport{
			MaxConnsPerHost: 2, MaxIdleConnsPerHost: 1, IdleConnTimeout: 2 * time.Second,
			DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// status reads the sidecar's status.
func (s *sidecars) status(ctx context.Context, pod *corev1.Pod) (standing, error) {
	return s.call(ctx, pod, http.MethodGet, "/status", http.StatusOK)
}

// drain begins a drain without a time limit, or removes the limit of the current one.
func (s *sidecars) drain(ctx context.Context, pod *corev1.Pod) (standing, error) {
	return s.call(ctx, pod, http.MethodPost, "/drain?budget=none", http.StatusAccepted)
}

// takeBack cancels the drain. It is no error if there is none.
func (s *sidecars) takeBack(ctx context.Context, pod *corev1.Pod) error {
	_, err := s.call(ctx, pod, http.MethodDelete, "/drain", http.StatusOK, http.StatusConflict)
	return err
}

func (s *sidecars) call(ctx context.Context, pod *corev1.Pod, method, path string, want ...int) (standing, error) {
	address, token, err := addressOf(pod)
	if err != nil {
		return standing{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, sidecarCall)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, address+path, http.NoBody)
	if err != nil {
		return standing{}, fmt.Errorf("%s %s: %w", method, address+path, err)
	}
	request.Header.Set("User-Agent", "lastcall-admission")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return standing{}, err
	}
	defer func() { _ = answer.Body.Close() }() // a read-only body: an error does not matter
	body, err := io.ReadAll(io.LimitReader(answer.Body, largestStatus))
	if err != nil {
		return standing{}, fmt.Errorf("%s %s: reading the answer: %w", method, address+path, err)
	}
	good := false
	for _, code := range want {
		good = good || answer.StatusCode == code
	}
	if !good {
		return standing{}, &refused{method + " " + address + path, answer.StatusCode, fmt.Sprintf("%.200s", body)}
	}
	var st standing
	if err := json.Unmarshal(body, &st); err != nil {
		return standing{}, fmt.Errorf("%s %s: reading the answer: %w", method, address+path, err)
	}
	return st, nil
}
