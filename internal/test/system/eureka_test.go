package system

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
	"lastcall/internal/test/wait"
)

// spring is a Spring Boot app with the real Eureka client, and its sidecar.
type spring struct {
	*servers.EurekaApp
	peers *servers.Eureka
}

func startSpring(t *testing.T, peers *servers.Eureka, name string) *spring {
	t.Helper()
	id := name + ":8080"
	a := &spring{servers.StartEurekaApp(t, peers, name, id, "127.0.0.1"), peers}
	for peer := range peers.URLs {
		a.await(t, peer, "UP")
	}
	return a
}

// status is the app's status as a peer's clients see it, in the answers that they
// read: the status, or "gone".
func (a *spring) status(t *testing.T, peer int) string {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), http.MethodGet, a.peers.URLs[peer]+"/apps/"+strings.ToUpper(a.Name), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := servers.Client(t).Do(req)
	if err != nil {
		t.Fatalf("asking Eureka: %v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return "gone"
	}
	var answer struct {
		Application struct {
			Instance []struct{ InstanceID, Status string }
		}
	}
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil {
		t.Fatalf("asking Eureka: %v in %d %s", err, resp.StatusCode, body)
	}
	for _, i := range answer.Application.Instance {
		if i.InstanceID == a.ID {
			return i.Status
		}
	}
	return "gone"
}

func (a *spring) await(t *testing.T, peer int, status string) {
	t.Helper()
	wait.For(t, fmt.Sprintf("peer %d telling that the app is %s", peer, status), func() error {
		if got := a.status(t, peer); got != status {
			return errors.New("it tells " + got)
		}
		return nil
	})
}

// sidecar starts the app's sidecar.
func (a *spring) sidecar(t *testing.T, more ...string) *sidecar.Sidecar {
	t.Helper()
	return startFound(t, append([]string{
		"LASTCALL_APP_PORT=" + strconv.Itoa(a.Port),
		"LASTCALL_POD_IP=127.0.0.1",
		"LASTCALL_GRACE_PERIOD=10m",
		"LASTCALL_ENDPOINTS_WAIT=100ms",
		"LASTCALL_QUIET=100ms",
		"LASTCALL_REGISTRIES=eureka",
		"LASTCALL_EUREKA_URLS=" + strings.Join(a.peers.URLs, ","),
		"LASTCALL_EUREKA_APP=" + a.Name,
		"LASTCALL_EUREKA_CLIENT_REFRESH=1s",
	}, more...))
}

func TestEureka(t *testing.T) {
	servers.NeedEureka(t)
	peers, err := servers.StartEureka(servers.EurekaOptions{Peers: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(peers.Stop)

	t.Run("a Spring Boot app leaves", func(t *testing.T) {
		app := startSpring(t, peers, "leaves")
		s := app.sidecar(t)
		hook := s.PreStop(t.Context())
		s.Signal(t, syscall.SIGTERM)
		drains(t, hook)
		for peer := range peers.URLs {
			if got := app.status(t, peer); got != "OUT_OF_SERVICE" {
				t.Errorf("after the drain peer %d lists the app as %s", peer, got)
			}
		}
		// The app's client sends heartbeats, then its own DOWN and DELETE.
		app.Terminate(t)
		<-app.Exited()
		exits(t, s, 0)
		for peer := range peers.URLs {
			app.await(t, peer, "gone")
		}
	})

	t.Run("a Spring Boot app crashes after its hook and is started again", func(t *testing.T) {
		app := startSpring(t, peers, "restarts")
		s := app.sidecar(t)
		drains(t, s.PreStop(t.Context()))
		app.Kill()
		awaitAppGone(t, s)
		app.Start(t)
		s.Await(t, "the drain being taken back", func(status drain.Status) bool { return status.Ready })
		for peer := range peers.URLs {
			app.await(t, peer, "UP")
		}
	})

	t.Run("one of two peers hangs, and goes on", func(t *testing.T) {
		app := startSpring(t, peers, "hangs")
		s := app.sidecar(t)
		peers.Freeze(t, 1)
		hook := s.PreStop(t.Context())
		s.Await(t, "a failed call", func(status drain.Status) bool { return status.Registries[0].Failures > 0 })
		waiting(t, hook) // the peer's clients may still discover the pod
		peers.Thaw(t, 1)
		drains(t, hook)
		for peer := range peers.URLs {
			if got := app.status(t, peer); got != "OUT_OF_SERVICE" {
				t.Errorf("after the drain peer %d lists the app as %s", peer, got)
			}
		}
	})

	// This must be the last one, because the peer stays dead.
	t.Run("one of two peers is dead", func(t *testing.T) {
		app := startSpring(t, peers, "dead")
		s := app.sidecar(t)
		peers.Kill(1)
		hook := s.PreStop(t.Context())
		s.Signal(t, syscall.SIGTERM)
		r := drains(t, hook)
		if r.Registries[0].Gone == nil {
			t.Errorf("the report is %+v", r)
		}
		if got := app.status(t, 0); got != "OUT_OF_SERVICE" {
			t.Errorf("after the drain the other peer lists the app as %s", got)
		}
		app.Kill()
		exits(t, s, 0)
		app.await(t, 0, "gone")
	})
}
