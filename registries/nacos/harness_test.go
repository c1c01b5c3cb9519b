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

// client is the kind of client that an app registers by.
type client int

const (
	grpc       client = iota // a connection
	beats                    // v1 by HTTP, with heartbeats
	openAPI                  // v3 by HTTP, with heartbeats
	persistent               // v1 by HTTP, for good
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
	transport    http.RoundTripper // in place of a network; nil: there is one
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

// hanging is a server that accepts requests and answers none.
func hanging(t *testing.T) string {
	t.Helper()
	return serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the end of the request is not seen
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

// Register is the start of a pod: the first, or the next with the same address.
func (h *harness) Register(t *testing.T) {
	t.Helper()
	h.starts++
	if h.starts > 1 {
		h.pod.Name += "-next"
	}
	if h.deregistered && h.f != nil {
		h.f.advance(61 * time.Second) // what was withdrawn is forgotten by then
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

// form is the instance as a client without gRPC names it.
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
	case grpc, persistent: // what they have registered needs none
	}
}

// Listed asks as a client of v1 does, and as one of v3 where there is that.
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

// Known asks the fake itself, or a real server for the one instance.
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

// Settle has nothing to wait for: what one server knows, all do.
func (h *harness) Settle(*testing.T) {}

// Registry returns the plug-in, whose Deregister comes when the app is gone.
func (h *harness) Registry(t *testing.T) drain.Registry {
	t.Helper()
	return &appGone{h.plugIn(t), h}
}

// appGone ends the app before its instance is deregistered, as in a pod's life.
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
		r.servers[0].client.Transport = h.transport // which all servers share
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

// shown is the instance as clients are told of it, or would be.
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

// operate is what an operator does in the console.
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
