package nacos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"lastcall/drain"
)

// client is the kind of client with which an app registers.
type client int

const (
	grpc       client = iota // a connection
	beats                    // v1 by HTTP, with heartbeats
	openAPI                  // v3 by HTTP, with heartbeats
	persistent               // v1 by HTTP, persistent
)

// harness is a pod whose app has registered in Nacos.
type harness struct {
	f      *fake  // nil: a real server
	url    string // with its context path
	client client
	cfg    Config
	pod    drain.Pod
	weight float64

	starts       int
	connection   *connection
	deregistered bool
	token        string
	transport    http.RoundTripper // used instead of a network; nil: the network is used
}

// pods counts the pods of all tests.
var pods atomic.Int64

func newHarness(f *fake, url string, c client) *harness {
	n := int(pods.Add(1))
	name := fmt.Sprintf("orders-%d", n)
	return &harness{
		f: f, url: url, client: c, weight: 1,
		pod: drain.Pod{Name: name, IP: fmt.Sprintf("10.1.%d.%d", n/250, 1+n%250), AppPort: 8080},
		cfg: Config{URLs: []string{url}, Services: []string{name}, Namespace: "public", Group: "DEFAULT_GROUP", Cluster: "DEFAULT", ClientRefresh: time.Second},
	}
}

// serve starts a server for f, and returns its URL.
func serve(t *testing.T, f http.Handler) string {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL + "/nacos"
}

// hanging starts a server that accepts requests and answers none, and returns
// its URL.
func hanging(t *testing.T) string {
	t.Helper()
	return serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // otherwise the end of the request goes unnoticed
		<-r.Context().Done()
	}))
}

// dead is the address of a server that is down.
const dead = "http://127.0.0.1:1/nacos"

func (h *harness) registration() registration {
	return registration{
		namespace: h.cfg.Namespace, group: h.cfg.Group, service: h.cfg.Services[0], cluster: h.cfg.Cluster,
		ip: h.pod.IP, port: h.pod.AppPort, weight: h.weight, enabled: true, ephemeral: h.client != persistent,
		metadata: map[string]string{"version": strconv.Itoa(h.starts)},
	}
}

// Register starts a pod: the first, or the next with the same address.
func (h *harness) Register(t *testing.T) {
	t.Helper()
	h.starts++
	if h.starts > 1 {
		h.pod.Name += "-next"
	}
	if h.deregistered && h.f != nil {
		h.f.advance(61 * time.Second) // by then the servers have forgotten the withdrawal
	}
	h.deregistered = false
	if h.client == grpc {
		if h.connection != nil {
			h.connection.close()
		}
		h.connection = h.f.connect()
		h.connection.register(h.registration())
		return
	}
	h.send(t, http.MethodPost, h.clientPath(), h.form())
}

func (h *harness) clientPath() string {
	if h.client == openAPI {
		return "/v3/client/ns/instance"
	}
	return "/v1/ns/instance"
}

// form returns the parameters with which a client without gRPC names the
// instance.
func (h *harness) form() url.Values {
	i := h.registration()
	metadata, err := json.Marshal(i.metadata)
	if err != nil {
		panic(err)
	}
	name := i.service
	if h.client != openAPI {
		name = i.group + "@@" + i.service
	}
	return url.Values{
		"namespaceId": {i.namespace}, "groupName": {i.group}, "serviceName": {name}, "clusterName": {i.cluster}, "cluster": {i.cluster},
		"ip": {i.ip}, "port": {strconv.Itoa(i.port)}, "weight": {strconv.FormatFloat(i.weight, 'f', -1, 64)},
		"enabled": {"true"}, "ephemeral": {strconv.FormatBool(i.ephemeral)}, "metadata": {string(metadata)},
	}
}

func (h *harness) Heartbeat(t *testing.T) {
	t.Helper()
	form := h.form()
	switch h.client {
	case openAPI:
		form.Set("heartBeat", "true")
		h.send(t, http.MethodPost, "/v3/client/ns/instance", form)
	case beats:
		beat, err := json.Marshal(map[string]any{
			"ip": h.pod.IP, "port": h.pod.AppPort, "cluster": h.cfg.Cluster, "serviceName": form.Get("serviceName"),
			"weight": h.weight, "metadata": h.registration().metadata, "period": 5000, "scheduled": true, "stopped": false,
		})
		if err != nil {
			t.Fatal(err)
		}
		form.Set("beat", string(beat))
		h.send(t, http.MethodPut, "/v1/ns/instance/beat", form)
	case grpc, persistent: // their registrations need none
	}
}

// Listed queries as a client of v1 does, and as one of v3 if the server has v3.
func (h *harness) Listed(t *testing.T) bool {
	t.Helper()
	i := h.registration()
	q := url.Values{"namespaceId": {i.namespace}, "groupName": {i.group}, "serviceName": {i.group + "@@" + i.service}, "healthyOnly": {"true"}}
	var list struct{ Hosts []host }
	h.get(t, "/v1/ns/instance/list", q, &list)
	if h.f != nil && h.f.major == 3 {
		var v3 struct{ Data []host }
		q.Set("serviceName", i.service)
		h.get(t, "/v3/client/ns/instance/list", q, &v3)
		list.Hosts = append(list.Hosts, v3.Data...)
	}
	for _, one := range list.Hosts {
		if one.IP == h.pod.IP && one.Port == h.pod.AppPort && one.available() {
			return true
		}
	}
	return false
}

// Known looks into the fake itself, or queries a real server for the one
// instance.
func (h *harness) Known(t *testing.T) bool {
	t.Helper()
	if h.f == nil {
		code, _ := h.request(t, http.MethodGet, "/v1/ns/instance", h.form())
		return code == http.StatusOK
	}
	i := h.registration()
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	h.f.passLocked()
	return h.f.instances[i.key()] != nil
}

// Settle does nothing, because all servers have the same data.
func (h *harness) Settle(*testing.T) {}

// Registry returns the plug-in. Its Deregister first ends the app.
func (h *harness) Registry(t *testing.T) drain.Registry {
	t.Helper()
	return &appGone{h.plugIn(t), h}
}

// appGone ends the app before its instance is deregistered, as in a real pod.
type appGone struct {
	*Registry
	h *harness
}

func (a *appGone) Deregister(ctx context.Context) error {
	if ctx.Err() == nil {
		a.h.deregistered = true
		if a.h.connection != nil {
			a.h.connection.close()
		}
	}
	return a.Registry.Deregister(ctx)
}

func (h *harness) plugIn(t *testing.T) *Registry {
	t.Helper()
	r, err := New(h.cfg, h.pod)
	if err != nil {
		t.Fatal(err)
	}
	if h.transport != nil {
		r.servers[0].client.Transport = h.transport // all servers share it
	}
	if h.f != nil {
		r.now = func() time.Time {
			h.f.mu.Lock()
			defer h.f.mu.Unlock()
			return h.f.nowLocked()
		}
	}
	return r
}

// shown returns the instance as clients get it, or would get it.
func (h *harness) shown(t *testing.T) registration {
	t.Helper()
	i := h.registration()
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	h.f.passLocked()
	known := h.f.instances[i.key()]
	if known == nil {
		t.Fatal("the instance is not there")
	}
	return h.f.shownLocked(known)
}

// operate sets enabled as an operator does in the console.
func (h *harness) operate(enabled bool) {
	i := h.registration()
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if known := h.f.instances[i.key()]; known != nil {
		weight := h.f.shownLocked(known).weight
		h.f.patchLocked(known, patch{enabled: &enabled, weight: &weight})
	}
}

// do makes one call to the plug-in, which must succeed.
func do(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := f(ctx); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func isWithdrawn(t *testing.T, r *Registry) (gone bool) {
	t.Helper()
	do(t, "Withdrawn", func(ctx context.Context) (err error) {
		gone, err = r.Withdrawn(ctx)
		return err
	})
	return gone
}

func find(t *testing.T, r *Registry) (text string) {
	t.Helper()
	do(t, "Find", func(ctx context.Context) (err error) {
		text, err = r.Find(ctx)
		return err
	})
	return text
}
