package compare

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"lastcall/internal/test/servers"
)

// The statistics of a real Envoy, read as both shutdown managers do: an idle
// connection counts, and only the next answer on it closes it.
func TestEnvoy(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	t.Cleanup(backend.Close)
	e := servers.StartEnvoy(t, &servers.Backend{Address: backend.Listener.Addr().String()}, servers.EnvoyOptions{})
	calls := servers.Client(t)
	proxies := map[string]*envoy{"Envoy Gateway": forGateway(e.Admin, calls), "Contour": forContour(e.Admin, calls)}
	await := func(when string, want int) {
		t.Helper()
		for name, p := range proxies {
			deadline := time.Now().Add(time.Minute)
			for {
				got, err := p.connections(t.Context())
				if err == nil && got == want {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s: %s counts %d, %v; want %d", when, name, got, err, want)
				}
				<-time.After(20 * time.Millisecond)
			}
		}
	}
	client := servers.Client(t)
	ask := func() (closes bool) {
		t.Helper()
		a, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", e.Port))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		if _, err := io.Copy(io.Discard, a.Body); err != nil || a.StatusCode != http.StatusOK {
			t.Fatalf("%s %v", a.Status, err)
		}
		return a.Close
	}

	await("before any client", 0)
	if ask() {
		t.Error("Envoy closes connections before it drains")
	}
	await("with an idle connection", 1)
	for name, p := range proxies {
		if err := p.failHealthChecks(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	await("with an idle connection, draining", 1)
	if !ask() {
		t.Error("a draining Envoy keeps a connection that was used")
	}
	await("after the next request", 0)
}
