package eureka

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"lastcall/internal/test/wait"
)

func isListed(t *testing.T, r *Registry) (listed bool, why string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	defer cancel()
	listed, why, err := r.Listed(ctx)
	if err != nil {
		t.Fatalf("Listed: %v", err)
	}
	if listed != (why == "") {
		t.Fatalf("Listed returns %v because of %q", listed, why)
	}
	return listed, why
}

// A registered instance is not listed before it is UP at every server, in every
// answer that clients read.
func TestListed(t *testing.T) {
	for name, change := range map[string]func(*fakeApp){
		"found by address":             nil,
		"application known":            func(a *fakeApp) { a.cfg.App = a.app },
		"application and id known":     func(a *fakeApp) { a.cfg.App, a.cfg.InstanceID = a.app, a.id },
		"id known, and no application": func(a *fakeApp) { a.cfg.InstanceID = a.id },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServers(t, twoServers)
			a := newApp(s, change)
			r := a.registry(t)
			if listed, why := isListed(t, r); listed || !strings.Contains(why, "the pod's instance") {
				t.Fatalf("before it is registered: %v %q", listed, why)
			}
			a.registerAs(t, "STARTING")
			wait.Until(t, "the instance being found", func() bool {
				listed, why := isListed(t, r)
				if listed {
					t.Fatal("an instance that is STARTING is listed")
				}
				_, _ = r.Find(t.Context()) // as the drainer does
				return strings.Contains(why, "is STARTING")
			})
			a.registerAs(t, up)
			wait.Until(t, "Listed", func() bool { listed, _ := isListed(t, r); return listed })
			for _, u := range s.URLs {
				for _, path := range []string{"/apps", "/apps/delta", "/apps/" + a.app} {
					for _, accept := range []string{asJSON, asXML} {
						code, body := sendWith(t, http.MethodGet, u+path, nil, http.Header{"Accept": {accept}})
						if code != http.StatusOK || !strings.Contains(string(body), a.id) {
							t.Errorf("%s%s (%s) does not hold the instance: status %d", u, path, accept, code)
						}
					}
				}
			}
			a.registerAs(t, down)
			if listed, why := isListed(t, r); listed || !strings.Contains(why, "is DOWN") {
				t.Errorf("an instance that is DOWN: %v %q", listed, why)
			}
		})
	}
}

// An instance that an earlier pod has left under the same id sends clients
// elsewhere.
func TestEarlierPodsInstanceIsNotListed(t *testing.T) {
	s := startServers(t, oneServer)
	a := newApp(s, func(a *fakeApp) { a.cfg.App, a.cfg.InstanceID = a.app, a.id })
	own := a.pod.IP
	a.pod.IP = "10.9.9.9"
	a.Register(t)
	a.pod.IP = own
	wait.Until(t, "the server's clock having moved on", func() bool {
		r := a.registry(t)
		listed, why := isListed(t, r)
		return !listed && strings.Contains(why, "an earlier pod's")
	})
	r := a.registry(t)
	a.Register(t)
	wait.Until(t, "Listed", func() bool { listed, _ := isListed(t, r); return listed })
}
