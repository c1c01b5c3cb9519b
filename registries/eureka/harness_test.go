package eureka

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

func TestMain(m *testing.M) {
	RouteLogs()
	// More side by side than there are processors: these tests wait for what servers
	// cache and copy most of the time.
	if err := flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
	m.Run()
}

// The servers are started once for all tests, which use applications and
// instances of their own. They end with the test process.
var (
	oneServer  = sync.OnceValues(func() (*servers.Eureka, error) { return servers.StartEureka(servers.EurekaOptions{}) })
	twoServers = sync.OnceValues(func() (*servers.Eureka, error) {
		return servers.StartEureka(servers.EurekaOptions{Peers: 2})
	})
)

func startServers(t *testing.T, start func() (*servers.Eureka, error)) *servers.Eureka {
	t.Helper()
	servers.NeedEureka(t)
	s, err := start()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pods counts the instances that tests have made.
var pods atomic.Int64

// fakeApp is a pod whose app speaks to the real servers as Netflix' client
// does, but only when it is told to.
type fakeApp struct {
	urls    []string
	app, id string
	pod     drain.Pod
	cfg     Config
	dirty   int64
	leaves  sync.Once
}

// newApp returns an app that is found by its address. change may be nil.
func newApp(servers *servers.Eureka, change func(*fakeApp)) *fakeApp {
	n := pods.Add(1)
	a := &fakeApp{
		urls: servers.URLs,
		app:  fmt.Sprintf("APP-%d", n),
		id:   fmt.Sprintf("pod-%d:app:8080", n),
		pod:  drain.Pod{IP: fmt.Sprintf("10.1.%d.%d", n/256, n%256), AppPort: 8080},
	}
	a.cfg = Config{URLs: servers.URLs, Status: outOfService}
	if change != nil {
		change(a)
	}
	return a
}

func (a *fakeApp) path() string { return "/apps/" + url.PathEscape(a.app) + "/" + url.PathEscape(a.id) }

func (a *fakeApp) Register(t *testing.T) { a.registerAs(t, up) }

// registerAs registers at the first server, and waits until its peers know. An
// id comes back when the servers have told each other of what was before: a pod
// takes longer to start than they do.
func (a *fakeApp) registerAs(t *testing.T, status string) {
	t.Helper()
	if a.dirty > 0 {
		a.Settle(t)
	}
	a.post(t, status)
	for _, u := range a.urls[1:] {
		wait.Until(t, "the registration reaching "+u, func() bool {
			i, ok := a.at(t, u)
			return ok && i["lastDirtyTimestamp"] == fmt.Sprint(a.dirty)
		})
	}
}

// post registers again at the first server, and waits for nothing else.
func (a *fakeApp) post(t *testing.T, status string) {
	t.Helper()
	a.dirty = max(time.Now().UnixMilli(), a.dirty+1)
	a.postTo(t, a.urls[0], status, http.Header{})
}

// tell registers as a peer does that tells server of the present registration.
func (a *fakeApp) tell(t *testing.T, server, status string) {
	t.Helper()
	a.postTo(t, server, status, fromPeer())
}

// fromPeer marks a call as one by which servers tell each other of changes.
func fromPeer() http.Header {
	return http.Header{"X-Netflix-Discovery-Replication": {"true"}}
}

func (a *fakeApp) postTo(t *testing.T, server, status string, header http.Header) {
	t.Helper()
	a.leavesWith(t)
	body, err := json.Marshal(map[string]any{"instance": map[string]any{
		"instanceId": a.id, "hostName": "host", "app": a.app, "ipAddr": a.pod.IP, "status": status,
		"port":               map[string]any{"$": a.pod.AppPort, "@enabled": "true"},
		"securePort":         map[string]any{"$": 443, "@enabled": "false"},
		"vipAddress":         a.app,
		"dataCenterInfo":     map[string]any{"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
		"leaseInfo":          map[string]any{"renewalIntervalInSecs": 30, "durationInSecs": 90},
		"lastDirtyTimestamp": fmt.Sprint(a.dirty),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if code, answer := sendWith(t, http.MethodPost, server+"/apps/"+url.PathEscape(a.app), body, header); code != http.StatusNoContent {
		t.Fatalf("registering %s/%s: status %d: %s", a.app, a.id, code, answer)
	}
}

// leavesWith makes the instance leave at the end of t. If tests left their
// instances behind, all later tests would read longer and longer answers.
func (a *fakeApp) leavesWith(t *testing.T) {
	a.leaves.Do(func() { t.Cleanup(a.leave) })
}

// leave cancels the instance at all servers that are still there.
func (a *fakeApp) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, u := range a.urls {
		req, err := http.NewRequestWithContext(ctx, http.MethodDelete, u+a.path(), http.NoBody)
		if err != nil {
			continue // the test has chosen a URL that is none
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}
}

// Settle waits until each of the servers has told its peers of all changes so
// far. They pass changes on in order, those of half a second together, so it is
// enough that something newer has arrived: another instance.
func (a *fakeApp) Settle(t *testing.T) {
	t.Helper()
	if len(a.urls) == 1 {
		return
	}
	for n := range a.urls {
		from := slices.Concat(a.urls[n:], a.urls[:n])
		newApp(&servers.Eureka{URLs: from}, nil).registerAs(t, down)
	}
}

// Heartbeat renews the lease, or registers again when that is not known.
func (a *fakeApp) Heartbeat(t *testing.T) {
	t.Helper()
	switch code, answer := send(t, http.MethodPut, fmt.Sprintf("%s%s?status=UP&lastDirtyTimestamp=%d", a.urls[0], a.path(), a.dirty), nil); code {
	case http.StatusOK:
	case http.StatusNotFound:
		a.Register(t)
	default:
		t.Fatalf("heartbeat: status %d: %s", code, answer)
	}
}

// replicated waits until the server that was started again has been told of the
// instance, by the heartbeats that the other one gets. These must not come too
// often: a server waits with its peers until it has heard nothing for 500ms.
func (a *fakeApp) replicated(t *testing.T, server string) {
	t.Helper()
	beats := time.NewTicker(time.Second)
	defer beats.Stop()
	wait.Until(t, "the instance reaching "+server, func() bool {
		select {
		case <-beats.C:
			a.Heartbeat(t)
		default:
		}
		return a.statusAt(t, server) != ""
	})
}

// Listed reads what Java clients read first: everything, as JSON.
func (a *fakeApp) Listed(t *testing.T) bool {
	t.Helper()
	for _, u := range a.urls {
		if listed(t, u, a.app, a.id) {
			return true
		}
	}
	return false
}

func listed(t *testing.T, url, app, id string) bool {
	t.Helper()
	var all struct {
		Applications struct {
			Application []struct {
				Name     string
				Instance []struct{ InstanceID, Status string }
			}
		}
	}
	code, answer := send(t, http.MethodGet, url+"/apps/", nil)
	if err := json.Unmarshal(answer, &all); code != http.StatusOK || err != nil {
		t.Fatalf("reading all applications: status %d, %v", code, err)
	}
	for _, a := range all.Applications.Application {
		for _, i := range a.Instance {
			if a.Name == app && i.InstanceID == id && i.Status == up {
				return true
			}
		}
	}
	return false
}

func (a *fakeApp) Known(t *testing.T) bool {
	t.Helper()
	for _, u := range a.urls {
		if _, ok := a.at(t, u); ok {
			return true
		}
	}
	return false
}

// at returns the instance as one server holds it.
func (a *fakeApp) at(t *testing.T, server string) (map[string]any, bool) {
	t.Helper()
	code, answer := send(t, http.MethodGet, server+a.path(), nil)
	if code == http.StatusNotFound {
		return nil, false
	}
	var i struct{ Instance map[string]any }
	if err := json.Unmarshal(answer, &i); code != http.StatusOK || err != nil {
		t.Fatalf("reading %s: status %d, %v", a.path(), code, err)
	}
	return i.Instance, true
}

// statusAt returns what one server holds; empty where it does not know the instance.
func (a *fakeApp) statusAt(t *testing.T, server string) string {
	t.Helper()
	i, _ := a.at(t, server)
	s, _ := i["status"].(string)
	return s
}

// holds checks that every server holds the instance with one status.
func (a *fakeApp) holds(t *testing.T, status string) {
	t.Helper()
	for _, u := range a.urls {
		if got := a.statusAt(t, u); got != status {
			t.Errorf("it is %q at %s, want %q", got, u, status)
		}
	}
}

func (a *fakeApp) Registry(t *testing.T) drain.Registry { return a.registry(t) }

func (a *fakeApp) registry(t *testing.T) *Registry {
	t.Helper()
	r, err := New(a.cfg, a.pod)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// send makes one call as a client, and asks for JSON.
func send(t *testing.T, method, url string, body []byte) (int, []byte) {
	t.Helper()
	return sendWith(t, method, url, body, http.Header{})
}

func sendWith(t *testing.T, method, url string, body []byte, header http.Header) (int, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}
