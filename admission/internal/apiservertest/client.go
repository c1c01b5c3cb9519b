package apiservertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// largest is the maximum number of bytes that are read of a response.
const largest = 8 << 20

// StatusError is a response with a status code other than 2xx.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string { return fmt.Sprintf("%d: %s", e.Code, e.Message) }

// Reply is a response with a status code of 2xx.
type Reply struct {
	Body     []byte
	Warnings []string // as kubectl prints them
}

// Do sends object as JSON, or no body if it is nil, and returns the response. The
// error for a status code other than 2xx is a StatusError.
func (s *Server) Do(ctx context.Context, method, path string, object any) (Reply, error) {
	var body io.Reader
	if object != nil {
		text, err := json.Marshal(object)
		if err != nil {
			return Reply{}, fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, body)
	if err != nil {
		return Reply{}, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	answer, err := s.client.Do(request)
	if err != nil {
		return Reply{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, largest))
	if err != nil {
		return Reply{}, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if answer.StatusCode/100 != 2 {
		var status struct{ Message string }
		if json.Unmarshal(text, &status) != nil || status.Message == "" {
			status.Message = string(text)
		}
		return Reply{}, &StatusError{Code: answer.StatusCode, Message: status.Message}
	}
	return Reply{Body: text, Warnings: warnings(answer.Header)}, nil
}

// Put creates the object, or replaces it if it exists. path is the path of its
// collection.
func (s *Server) Put(t testing.TB, path, name string, object any) {
	t.Helper()
	_, err := s.Do(t.Context(), http.MethodPost, path, object)
	if status := new(StatusError); errors.As(err, &status) && status.Code == http.StatusConflict {
		_, err = s.Do(t.Context(), http.MethodPut, path+"/"+name, object)
	}
	if err != nil {
		t.Fatalf("creating %s in %s: %v", name, path, err)
	}
}

// Delete deletes the object at path.
func (s *Server) Delete(t testing.TB, path string) {
	t.Helper()
	if _, err := s.Do(t.Context(), http.MethodDelete, path, nil); err != nil {
		t.Fatalf("deleting %s: %v", path, err)
	}
}

// Namespace creates a namespace in which pods can be created.
func (s *Server) Namespace(t testing.TB, name string) {
	t.Helper()
	s.Put(t, "/api/v1/namespaces", name, object("Namespace", name))
	s.Put(t, "/api/v1/namespaces/"+name+"/serviceaccounts", "default", object("ServiceAccount", "default"))
}

func object(kind, name string) map[string]any {
	return map[string]any{"apiVersion": "v1", "kind": kind, "metadata": map[string]any{"name": name}}
}

// warnings returns the texts of the headers `Warning: 299 - "text"`.
func warnings(h http.Header) []string {
	var all []string
	for _, value := range h.Values("Warning") {
		_, quoted, _ := strings.Cut(value, `"`)
		text := strings.TrimSuffix(quoted, `"`)
		all = append(all, strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(text))
	}
	return all
}
