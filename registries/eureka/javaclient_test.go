package eureka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
	"lastcall/registries/registrytest"
)

// javaApp is a pod whose app is a Spring Boot program with the real client.
type javaApp struct {
	*servers.EurekaApp
	*fakeApp // to inspect the servers; it sends nothing for the app
}

// startingJavaApp starts the app of a, at an address of its own. The app
// contacts only the first server, so that it is known which server replicates
// to which.
func startingJavaApp(t *testing.T, s *servers.Eureka, a *fakeApp, ip string) javaApp {
	t.Helper()
	first := &servers.Eureka{URLs: s.URLs[:1]}
	j := javaApp{servers.StartEurekaApp(t, first, a.app, a.id, ip), a}
	a.pod = drain.Pod{IP: ip, AppPort: j.Port}
	return j
}

// startJavaApp also waits until the app is in service.
func startJavaApp(t *testing.T, s *servers.Eureka, a *fakeApp, ip string) javaApp {
	t.Helper()
	j := startingJavaApp(t, s, a, ip)
	wait.Until(t, "the Java client's registration", func() bool { return a.Listed(t) })
	return j
}

// renewed waits until the app has sent a few more heartbeats to its server.
func (j javaApp) renewed(t *testing.T) {
	t.Helper()
	last := func() float64 {
		i, _ := j.at(t, j.urls[0])
		lease, _ := i["leaseInfo"].(map[string]any)
		at, _ := lease["lastRenewalTimestamp"].(float64)
		return at
	}
	for range 3 {
		before := last()
		wait.Until(t, "the app's next heartbeat", func() bool { return last() > before })
	}
}

// neverUp watches both servers until stop is called. stop fails the test if one
// of them ever held the instance as UP.
func (j javaApp) neverUp(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- j.lookForUp(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// lookForUp watches both servers until ctx ends.
func (j javaApp) lookForUp(ctx context.Context) error {
	looks := 0
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for ; ctx.Err() == nil; looks++ {
		for _, u := range j.urls {
			status, err := j.lookUp(ctx, u)
			if err != nil && ctx.Err() == nil {
				return err
			}
			if status == up {
				return fmt.Errorf("it was UP at %s", u)
			}
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
	if looks < 2 { // the last may have been cut off
		return errors.New("nobody looked")
	}
	return nil
}

// lookUp is statusAt for goroutines, which must not end the test.
func (j javaApp) lookUp(ctx context.Context, server string) (status string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+j.path(), http.NoBody)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return "", nil
	}
	var i struct{ Instance struct{ Status string } }
	err = json.NewDecoder(resp.Body).Decode(&i)
	return i.Instance.Status, err
}

func TestJavaClient(t *testing.T) {
	t.Parallel()
	s := startServers(t, twoServers)
	j := startJavaApp(t, s, newApp(s, nil), "127.0.0.11")
	r := j.registry(t)
	var text string
	wait.Until(t, "Find", func() (ok bool) {
		var err error
		text, err = r.Find(t.Context())
		return err == nil
	})
	if !strings.Contains(text, j.app+"/"+j.id+" is UP") {
		t.Errorf("Find says %q", text)
	}

	withdraw := func() {
		t.Helper()
		registrytest.Call(t, "Withdraw", r.Withdraw)
		registrytest.UntilWithdrawn(t, r)
		if j.Listed(t) {
			t.Fatal("Withdrawn returns true, but clients get the instance")
		}
	}

	withdraw()
	stop := j.neverUp(t)
	j.renewed(t)
	stop()
	if !registrytest.Withdrawn(t, r) {
		t.Fatal("heartbeats put it back into service")
	}

	j.Settle(t)
	registrytest.Call(t, "Restore", r.Restore)
	wait.Until(t, "it being in service again", func() bool { return j.Listed(t) })
	j.renewed(t)

	// When the servers have forgotten the app, it registers again at its next
	// heartbeat, as UP: the withdrawal is lost, and the plug-in notices.
	withdraw()
	send(t, "DELETE", j.urls[0]+j.path(), nil)
	wait.Until(t, "its registering again being seen", func() bool { return !registrytest.Withdrawn(t, r) })
	wait.Until(t, "both servers holding it as UP", func() bool {
		return j.statusAt(t, j.urls[0]) == up && j.statusAt(t, j.urls[1]) == up
	})
	withdraw()
	stop = j.neverUp(t)
	j.renewed(t)

	// The app ends while it is withdrawn: it sends DOWN and cancels.
	j.Terminate(t)
	for exited := false; !exited; {
		registrytest.Call(t, "Withdraw during its shutdown", r.Withdraw)
		select {
		case <-j.Exited():
			exited = true
		default:
		}
	}
	registrytest.Call(t, "Deregister", r.Deregister)
	stop()
	// What the servers replicate to each other after that is up to them.
	wait.Until(t, "nothing being left behind", func() bool {
		if !j.Known(t) {
			return true
		}
		registrytest.Call(t, "Deregister again", r.Deregister)
		j.Settle(t)
		return false
	})
	if !registrytest.Withdrawn(t, r) || j.Listed(t) {
		t.Error("it is in service, dead")
	}
}

// A drain is cut short and the pod is killed. The next pod gets the same id and
// another address, as in a StatefulSet.
func TestJavaClientAfterCutShortDrain(t *testing.T) {
	t.Parallel()
	s := startServers(t, twoServers)
	pod := newApp(s, func(a *fakeApp) { a.cfg.App, a.cfg.InstanceID = a.app, a.id })
	j := startJavaApp(t, s, pod, "127.0.0.12")
	r := j.registry(t)
	registrytest.Call(t, "Withdraw", r.Withdraw)
	registrytest.UntilWithdrawn(t, r)
	j.Kill()

	// The next sidecar starts before its app has registered.
	pod.pod.IP = "127.0.0.13"
	r = pod.registry(t)
	if text, err := r.Find(t.Context()); err == nil || !strings.Contains(err.Error(), "an earlier pod's") {
		t.Errorf("Find says %q, %v of the earlier pod's registration; want an error, so that it is called again", text, err)
	}
	next := startingJavaApp(t, s, pod, "127.0.0.13")
	var text string
	wait.Until(t, "Find", func() (ok bool) {
		var err error
		text, err = r.Find(t.Context())
		return err == nil
	})
	if !strings.Contains(text, "removed") {
		t.Errorf("Find says %q, want it to tell that a leftover was removed", text)
	}
	wait.Until(t, "the new app being in service", func() bool { return next.Listed(t) })
	next.renewed(t)
	if !next.Listed(t) {
		t.Error("it is out of service again")
	}
}

// A server that is restarted has lost everything: the client registers again,
// and the withdrawal is lost. An app that the sidecar registers is registered by
// the next renewal.
func TestLostRegistry(t *testing.T) {
	t.Parallel()
	servers.NeedEureka(t)
	s, err := servers.StartEureka(servers.EurekaOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	a := newRegistered(s)
	plugIn := a.plugIn(t, a.pod)
	register := func() error { return plugIn.Register(t.Context(), true) }
	if err := register(); err != nil {
		t.Fatal(err)
	}
	j := startJavaApp(t, s, newApp(s, nil), "127.0.0.14")
	r := j.registry(t)
	registrytest.Call(t, "Withdraw", r.Withdraw)
	registrytest.UntilWithdrawn(t, r)
	s.Kill(0)
	if gone, err := r.Withdrawn(t.Context()); gone || err == nil {
		t.Errorf("with the only server dead: got %v, %v; want an error", gone, err)
	}
	if err := register(); err == nil {
		t.Error("registered, and the server is down")
	}
	s.Restart(t, 0)
	wait.For(t, "the registration", register)
	wait.Until(t, "the instance being listed", func() bool { return a.Listed(t) })
	wait.Until(t, "its registering again being seen", func() bool { return !registrytest.Withdrawn(t, r) })
	registrytest.Call(t, "Withdraw", r.Withdraw)
	registrytest.UntilWithdrawn(t, r)
	j.renewed(t)
	if !registrytest.Withdrawn(t, r) || j.Listed(t) {
		t.Error("it is in service again")
	}
}
