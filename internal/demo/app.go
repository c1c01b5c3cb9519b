package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"lastcall/internal/demo/registry"
)

// appName is the app's name in the registry.
const appName = "SHOP"

// appVariable turns the demo's child process into an app. It holds an appConfig.
const appVariable = "DEMO_APP"

// appConfig is an app's configuration.
type appConfig struct {
	Pod       string        // instance id
	Eureka    string        // the service URL
	File      string        // the file for its number of requests in flight
	Heartbeat time.Duration // interval of heartbeats
	Longest   time.Duration // the longest work that it accepts
}

// app is a typical web service. It registers itself as the Java client does, and
// shuts down gracefully. On SIGTERM, when ctx ends, it sets itself DOWN and
// deregisters, accepts no new connections, and finishes its requests. The demo
// shows that this is not enough.
func app(ctx context.Context, c appConfig) error {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	inFlight := &inFlightFile{path: c.File}
	if err := inFlight.add(0); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /work", func(w http.ResponseWriter, r *http.Request) {
		if err := inFlight.add(1); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		work(w, r, c.Longest)
		// Send the answer before the request is counted as ended.
		_ = http.NewResponseController(w).Flush()
		if err := inFlight.add(-1); err != nil {
			slog.Error("counting", "error", err)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	at, err := netip.ParseAddrPort(listener.Addr().String())
	if err != nil {
		return err
	}
	e := newEurekaClient(c.Eureka, instanceOf(c.Pod, at, c.Heartbeat))
	if err := e.register(ctx, registry.Up); err != nil {
		return err
	}
	slog.Info("serving", "address", listener.Addr().String())
	select {
	case err := <-failed:
		return err
	case <-e.beat(ctx, c.Heartbeat):
	}

	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(e.register(ending, registry.Down), e.deregister(ending), server.Shutdown(ending))
}

// work takes as long as the request says.
func work(w http.ResponseWriter, r *http.Request, longest time.Duration) {
	d, err := time.ParseDuration(r.FormValue("for"))
	if err != nil || d < 0 || d > longest {
		http.Error(w, "for must be a duration up to "+longest.String(), http.StatusBadRequest)
		return
	}
	done := time.NewTimer(d)
	defer done.Stop()
	select {
	case <-done.C:
		_, _ = io.WriteString(w, "done\n")
	case <-r.Context().Done(): // the client is gone
	}
}

// inFlightFile keeps the number of requests in a file that the sidecar reads.
type inFlightFile struct {
	path string
	mu   sync.Mutex
	n    int
}

func (f *inFlightFile) add(d int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n += d
	tmp := filepath.Join(filepath.Dir(f.path), "."+filepath.Base(f.path)+".tmp")
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(f.n)+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, f.path)
}

// eurekaClient is the app's client of the registry.
type eurekaClient struct {
	service  string
	instance registry.Instance
	http     *http.Client
}

func newEurekaClient(service string, i *registry.Instance) *eurekaClient {
	return &eurekaClient{service, *i, &http.Client{Timeout: callLimit}}
}

func instanceOf(pod string, at netip.AddrPort, heartbeat time.Duration) *registry.Instance {
	return &registry.Instance{
		InstanceID: pod,
		HostName:   at.Addr().String(),
		App:        appName,
		IPAddr:     at.Addr().String(),
		Port:       registry.Port{Number: registry.Int(at.Port()), Enabled: "true"},
		SecurePort: registry.Port{Number: 443, Enabled: "false"},
		CountryID:  1,
		DataCenter: registry.DataCenter{Class: "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", Name: "MyOwn"},
		Lease:      registry.Lease{Renewal: int(heartbeat / time.Second), Duration: 90},
		VIP:        appName,
	}
}

func (e *eurekaClient) register(ctx context.Context, status string) error {
	e.instance.Status = status
	e.instance.Dirty = registry.Millis(time.Now().UnixMilli())
	body, err := json.Marshal(map[string]any{"instance": e.instance})
	if err != nil {
		return err
	}
	return e.call(ctx, http.MethodPost, "", body)
}

// beat sends heartbeats until ctx ends, and then closes the returned channel. As in
// the Java client, a 404 for a heartbeat leads to a new registration.
func (e *eurekaClient) beat(ctx context.Context, every time.Duration) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			query := fmt.Sprintf("/%s?status=%s&lastDirtyTimestamp=%d", e.instance.InstanceID, e.instance.Status, e.instance.Dirty)
			err := e.call(ctx, http.MethodPut, query, nil)
			if errors.Is(err, errNotFound) {
				err = e.register(ctx, e.instance.Status)
			}
			if err != nil && ctx.Err() == nil {
				slog.Warn("heartbeat", "error", err)
			}
		}
	}()
	return ended
}

func (e *eurekaClient) deregister(ctx context.Context) error {
	err := e.call(ctx, http.MethodDelete, "/"+e.instance.InstanceID, nil)
	if errors.Is(err, errNotFound) {
		return nil
	}
	return err
}

// callLimit is how long one call to the registry may take.
const callLimit = 5 * time.Second

var errNotFound = errors.New("not found")

// call makes one call for the instance; path begins after the app's name.
func (e *eurekaClient) call(ctx context.Context, method, path string, body []byte) error {
	q, err := http.NewRequestWithContext(ctx, method, e.service+"/apps/"+appName+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	a, err := e.http.Do(q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	switch {
	case a.StatusCode == http.StatusNotFound:
		return errNotFound
	case a.StatusCode/100 != 2:
		return fmt.Errorf("%s %s: %s", method, q.URL, a.Status)
	}
	return nil
}

// logInJSON changes the app's log to JSON, which its parent can parse.
func logInJSON() { slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil))) }
