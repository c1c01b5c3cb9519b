package system

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/sidecar"
	"lastcall/internal/test/wait"
)

// awaitFile waits until the file exists, or does not exist.
func awaitFile(t *testing.T, path string, want bool) {
	t.Helper()
	wait.For(t, fmt.Sprintf("%s being there: %v", path, want), func() error {
		if _, err := os.Stat(path); (err == nil) != want {
			return fmt.Errorf("checking: %w", errors.Join(err, errors.New("not yet")))
		}
		return nil
	})
}

func TestTheAppIsToldByAFile(t *testing.T) {
	t.Parallel()
	app := startApp(t)
	file := filepath.Join(t.TempDir(), "draining")
	if err := os.WriteFile(file, []byte("from a sidecar that was killed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := sidecar.Start(t, &program, app.env("LASTCALL_DRAINING_FILE="+file)...)
	awaitFile(t, file, false)
	s.Want(t, http.StatusAccepted, http.MethodPost, "/drain")
	awaitFile(t, file, true)
	s.Want(t, http.StatusOK, http.MethodDelete, "/drain")
	awaitFile(t, file, false)
	drains(t, s.PreStop(t.Context()))
	awaitFile(t, file, true)
	app.stop()
	s.Signal(t, syscall.SIGTERM)
	exits(t, s, 0)
}

// If the folder does not exist, the log says so, and the drain is not delayed.
func TestTheAppCannotBeTold(t *testing.T) {
	t.Parallel()
	app := startApp(t)
	s := sidecar.Start(t, &program, app.env("LASTCALL_DRAINING_FILE="+filepath.Join(t.TempDir(), "none", "draining"))...)
	drains(t, s.PreStop(t.Context()))
	if log := s.Log(); !strings.Contains(log, "the app's notice could not be notified") || !strings.Contains(log, "fsGroup") {
		t.Error("the log does not say what to do")
	}
	app.stop()
	s.Signal(t, syscall.SIGTERM)
	exits(t, s, 0)
}

// LASTCALL_DRAINING_FILE must differ from the file with the work in flight.
func TestTheAppIsNotToldAmongTheCounts(t *testing.T) {
	for _, file := range []string{"/lastcall/inflight", "/lastcall/inflight/draining"} {
		code, _, problems := run(t, []string{"LASTCALL_COUNTERS=envoy, file", "LASTCALL_DRAINING_FILE=" + file}, "config")
		if code != 2 || !strings.Contains(problems, "must be beside LASTCALL_FILE_PATH") {
			t.Errorf("%s: exit code %d, %s", file, code, problems)
		}
	}
}

// slowApp listens on two ports, and answers when the test releases it.
type slowApp struct {
	servers [2]*httptest.Server
	came    chan struct{}
	release chan struct{}
}

func startSlowApp(t *testing.T) *slowApp {
	t.Helper()
	a := &slowApp{came: make(chan struct{}), release: make(chan struct{})}
	for i := range a.servers {
		a.servers[i] = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case a.came <- struct{}{}:
			case <-r.Context().Done():
			}
			select {
			case <-a.release:
			case <-r.Context().Done():
			}
		}))
		t.Cleanup(a.servers[i].Close)
	}
	return a
}

func (a *slowApp) ports(t *testing.T) string {
	t.Helper()
	var ports []string
	for _, s := range a.servers {
		_, port, err := net.SplitHostPort(s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	return strings.Join(ports, ",")
}

// request sends a request to each port, and returns when both have arrived. It
// waits for the answers in the background.
func (a *slowApp) request(t *testing.T) {
	t.Helper()
	for _, s := range a.servers {
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Close = true // an idle connection to a new app would be in doubt
		go func() {
			if response, err := s.Client().Do(request); err == nil {
				_ = response.Body.Close()
			}
		}()
	}
	for range a.servers {
		select {
		case <-a.came:
		case <-time.After(wait.Patience):
			t.Fatal("a request did not arrive")
		}
	}
}

// With only the app's ports configured, the work in flight on all of them is
// counted. The app is gone when it listens on none of them.
func TestPortsAreEnough(t *testing.T) {
	t.Parallel()
	app := startSlowApp(t)
	s := sidecar.Start(t, &program, "LASTCALL_APP_PORT="+app.ports(t), "LASTCALL_GRACE_PERIOD=10m",
		"LASTCALL_ENDPOINTS_WAIT=100ms", "LASTCALL_QUIET=100ms")
	app.request(t)
	hook := s.PreStop(t.Context())
	s.Await(t, "both requests being counted", func(status drain.Status) bool {
		return holds(2)(status) && status.Counters[0].Name == "tcp" && strings.HasPrefix(status.WaitingFor, "waiting for 2 requests: tcp 2; ")
	})
	waiting(t, hook)
	close(app.release)
	drains(t, hook)
	s.Signal(t, syscall.SIGTERM)
	app.servers[0].Close()
	s.Want(t, http.StatusOK, http.MethodGet, "/livez")
	app.servers[1].Close()
	exits(t, s, 0)
}
