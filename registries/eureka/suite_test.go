package eureka

import (
	"testing"

	"lastcall/internal/test/servers"
	"lastcall/registries/registrytest"
)

// The suite, against the real server, for each way to say which instance.
func TestSuite(t *testing.T) {
	for _, test := range []struct {
		name   string
		start  func() (*servers.Eureka, error)
		change func(*fakeApp)
	}{
		{"one server, found by address", oneServer, nil},
		{"one server, application known", oneServer, func(a *fakeApp) { a.cfg.App = a.app }},
		{"one server, known by id", oneServer, func(a *fakeApp) { a.cfg.InstanceID = a.id }},
		{"one server, status DOWN", oneServer, func(a *fakeApp) { a.cfg.Status, a.cfg.App, a.cfg.InstanceID = down, a.app, a.id }},
		{"two servers, application and id known", twoServers, func(a *fakeApp) { a.cfg.App, a.cfg.InstanceID = a.app, a.id }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startServers(t, test.start)
			registrytest.Run(t, func(*testing.T) registrytest.Harness { return newApp(s, test.change) })
		})
	}
}
