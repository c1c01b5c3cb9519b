package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/wait"
	"lastcall/registries/eureka"
	"lastcall/registries/registrytest"
)

// The real plug-in works with this server as with Netflix' server.
func TestPlugin(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registrytest.Harness {
		r := New(50 * time.Millisecond)
		ctx, stop := context.WithCancel(context.Background())
		s := httptest.NewServer(r.Handler())
		go r.Run(ctx)
		t.Cleanup(func() { stop(); s.Close() })
		return &harness{server: s, r: r}
	})
}

type harness struct {
	server *httptest.Server
	r      *Registry
	starts int64
}

// Register uses a later time at each call, as an app's clock does.
func (h *harness) Register(t *testing.T) {
	t.Helper()
	h.starts++
	body := strings.NewReplacer(
		"1700000000000", fmt.Sprint(1700000000000+h.starts),
		`"durationInSecs": 3`, `"durationInSecs": 90`, // no heartbeats are sent
	).Replace(registration("web-1", Up))
	if code := h.call(t, http.MethodPost, "apps/SHOP", body); code != http.StatusNoContent {
		t.Fatalf("registering: %d", code)
	}
	// The cached answers are renewed one after another.
	wait.Until(t, "every answer showing the registration", func() bool {
		want := h.r.Status("SHOP", "web-1")
		return !slices.ContainsFunc(h.answers(t), func(status string) bool { return status != want })
	})
}

// answers returns the status of the instance in each kind of answer.
func (h *harness) answers(t *testing.T) []string {
	t.Helper()
	c := client{t, h.r}
	var all []string
	for _, path := range []string{"apps", "apps/SHOP"} {
		asJSON, asXML := c.listed(path)
		all = append(all, asJSON, asXML)
	}
	return all
}

func (h *harness) Heartbeat(t *testing.T) {
	t.Helper()
	if code := h.call(t, http.MethodPut, one+"?status=UP", ""); code != http.StatusOK {
		h.Register(t)
	}
}

func (h *harness) Listed(t *testing.T) bool {
	t.Helper()
	return slices.Contains(h.answers(t), Up)
}

// Settle does nothing: there is only one server.
func (h *harness) Settle(*testing.T) {}

func (h *harness) Known(*testing.T) bool { return h.r.Status("SHOP", "web-1") != "" }

func (h *harness) Registry(t *testing.T) drain.Registry {
	t.Helper()
	r, err := eureka.New(eureka.Config{
		URLs:   []string{h.server.URL + "/eureka"},
		App:    "shop",
		Status: OutOfService,
	}, drain.Pod{IP: "10.0.0.1", AppPort: 8080})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (h *harness) call(t *testing.T, method, path, body string) int {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, h.server.URL+"/eureka/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Body.Close()
	return a.StatusCode
}
