package steps

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lastcall/drain"
)

// fromYAML returns the registry of a file.
func fromYAML(t *testing.T, pod drain.Pod, yaml string) *Registry {
	t.Helper()
	r, err := newFrom(t, pod, yaml)
	if err != nil {
		t.Fatalf("the file is refused:\n%v", err)
	}
	return r
}

func newFrom(t *testing.T, pod drain.Pod, yaml string) (*Registry, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "steps.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return New(Config{File: file}, pod)
}

// serve starts a server that is closed at the end of the test.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// within returns a context with a deadline like the drainer's for one call.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func do(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	if err := f(within(t)); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func isWithdrawn(t *testing.T, r drain.Registry) bool {
	t.Helper()
	gone, err := r.Withdrawn(within(t))
	if err != nil {
		t.Fatalf("Withdrawn: %v", err)
	}
	return gone
}

func isListed(t *testing.T, r *Registry) bool {
	t.Helper()
	is, why, err := r.Listed(within(t))
	if err != nil {
		t.Fatalf("Listed: %v", err)
	}
	if is == (why != "") {
		t.Fatalf("Listed returns %v because of %q", is, why)
	}
	return is
}
