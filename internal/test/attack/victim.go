package attack

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"lastcall/internal/test/sidecar"
)

// between is the pause between two calls of the kubelet.
const between = 5 * time.Millisecond

// Victim is a sidecar whose counter reads a file. It knows the kubelet's address.
type Victim struct {
	*sidecar.Sidecar
	Kubelet *Kubelet

	t    testing.TB
	file string
}

// StartVictim starts a Victim with one request in flight.
func StartVictim(t testing.TB, program *sidecar.Program, env ...string) *Victim {
	t.Helper()
	v := &Victim{t: t, file: filepath.Join(t.TempDir(), "inflight")}
	v.InFlight(1)
	v.Sidecar = sidecar.Start(t, program, append([]string{
		"LASTCALL_COUNTERS=file", "LASTCALL_FILE_PATH=" + v.file,
		"LASTCALL_GRACE_PERIOD=10m", "LASTCALL_ENDPOINTS_WAIT=0s", "LASTCALL_QUIET=0s",
		"LASTCALL_HOST_IP=" + KubeletAddress().String(),
	}, env...)...)
	v.Kubelet = NewKubelet(v.URL)
	return v
}

// InFlight sets the number of requests in flight.
func (v *Victim) InFlight(n int) {
	v.t.Helper()
	err := os.WriteFile(v.file+".tmp", []byte(strconv.Itoa(n)), 0o600)
	if err == nil {
		err = os.Rename(v.file+".tmp", v.file)
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// Address is HOST:PORT.
func (v *Victim) Address() string { return strings.TrimPrefix(v.URL, "http://") }

// Asks makes n of the kubelet's calls, one after the other with a pause. Each
// answer must have the status code. Asks returns how long each call took.
func (v *Victim) Asks(path string, code, n int) []time.Duration {
	v.t.Helper()
	pause := time.NewTicker(between)
	defer pause.Stop()
	all := make([]time.Duration, n)
	for i := range all {
		<-pause.C
		var err error
		if _, all[i], err = v.Kubelet.Call(context.Background(), path, code); err != nil {
			v.t.Fatal(err)
		}
	}
	return all
}

// AwaitDrain waits until a drain is under way.
func (v *Victim) AwaitDrain() {
	v.t.Helper()
	v.Eventually(v.t, "the drain", func() error {
		_, _, err := v.Kubelet.Call(context.Background(), "/readyz", http.StatusServiceUnavailable)
		return err
	})
}

// Drains calls the hook as the kubelet does, ends the work, and checks that the
// drain ends as it should.
func (v *Victim) Drains() {
	v.t.Helper()
	type answer struct {
		body string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		body, _, err := v.Kubelet.Call(context.Background(), "/prestop", http.StatusOK)
		answered <- answer{body, err}
	}()
	v.AwaitDrain()
	v.InFlight(0)
	if a := <-answered; a.err != nil || !strings.Contains(a.body, `"outcome": "drained"`) {
		v.t.Fatalf("the drain: %s %v", a.body, a.err)
	}
}

// Deployed returns the memory limit in deploy/, in bytes.
func Deployed(t testing.TB) int64 {
	t.Helper()
	file := filepath.Join("..", "..", "..", "deploy", "kustomize", "common", "pod.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`limits: \{memory: (\d+)Mi\}`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("%s has no memory limit", file)
	}
	n, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 20
}
