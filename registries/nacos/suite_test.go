package nacos

import (
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/registries/registrytest"
)

// kinds returns servers of all generations, with the clients that they can
// have.
func kinds() []kind {
	return []kind{
		{"Nacos 3, gRPC", 3, nil, grpc},
		{"Nacos 3, HTTP of v3", 3, nil, openAPI},
		{"Nacos 3, HTTP of v1", 3, nil, beats},
		{"Nacos 3, persistent", 3, nil, persistent},
		{"Nacos 3 with users, gRPC", 3, withUsers, grpc},
		{"Nacos 2, gRPC", 2, nil, grpc},
		{"Nacos 2, HTTP", 2, nil, beats},
		{"Nacos 2, persistent", 2, nil, persistent},
		{"Nacos 2 with users, gRPC", 2, withUsers, grpc},
		{"Nacos 2.1, gRPC", 2, func(f *fake) { f.noV2 = true }, grpc},
		{"Nacos 2.1, HTTP", 2, func(f *fake) { f.noV2 = true }, beats},
		{"Nacos 1.4", 1, nil, beats},
		{"Nacos 1.4 with users", 1, withUsers, beats},
		{"Nacos 1.4, persistent", 1, nil, persistent},
		{"Nacos 1.2", 1, func(f *fake) { f.noBatch = true }, beats},
	}
}

type kind struct {
	name   string
	major  int
	change func(*fake)
	client client
}

func (k kind) start(t *testing.T) *harness {
	t.Helper()
	f := newFake(k.major, k.change)
	h := newHarness(f, serve(t, f), k.client)
	if f.auth {
		h.cfg.Username, h.cfg.Password = fakeUser, fakePassword
	}
	return h
}

func withUsers(f *fake) { f.auth = true }

func TestSuite(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			registrytest.Run(t, func(t *testing.T) registrytest.Harness { return k.start(t) })
		})
	}
}

// One of several servers is down, and one hangs.
func TestSuiteWithBrokenServers(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, func(t *testing.T) registrytest.Harness {
		h := kind{"", 3, nil, grpc}.start(t)
		h.cfg.URLs = []string{dead, hanging(t), h.url}
		return &patient{h}
	})
}

// patient is a pod whose sidecar has seen a server hang for half a minute.
type patient struct{ *harness }

func (p *patient) Registry(t *testing.T) drain.Registry {
	t.Helper()
	r := p.plugIn(t)
	for _, s := range r.servers {
		if s.url != p.url && s.url != dead { // a busy machine takes longer to refuse a connection
			s.limit, s.silentLimit = 50*time.Millisecond, 20*time.Millisecond
		}
	}
	if gone, err := r.Withdrawn(t.Context()); gone {
		t.Fatalf("withdrawn because of one server, while another has just begun to hang: %v", err)
	}
	p.f.advance(31 * time.Second)
	return &appGone{r, p.harness}
}
