package attack

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"lastcall/internal/sidecartest"
	"lastcall/internal/wait"
)

var program sidecartest.Program

func TestMain(m *testing.M) { os.Exit(sidecartest.MainAsShipped(m, &program)) }

// victim is a sidecar whose drain waits for the number in a file.
type victim struct {
	*sidecartest.Sidecar
	t       testing.TB
	file    string
	kubelet *Kubelet
}

func start(t testing.TB, program *sidecartest.Program, env ...string) *victim {
	t.Helper()
	v := &victim{t: t, file: filepath.Join(t.TempDir(), "inflight")}
	v.inFlight(1)
	v.Sidecar = sidecartest.Start(t, program, append([]string{
		"LASTCALL_COUNTERS=file", "LASTCALL_FILE_PATH=" + v.file,
		"LASTCALL_GRACE_PERIOD=10m", "LASTCALL_ENDPOINTS_WAIT=0s", "LASTCALL_QUIET=0s",
		"LASTCALL_HOST_IP=" + KubeletAddress.String(),
	}, env...)...)
	v.kubelet = NewKubelet(v.URL)
	return v
}

func (v *victim) inFlight(n int) {
	v.t.Helper()
	err := os.WriteFile(v.file+".tmp", []byte(strconv.Itoa(n)), 0o600)
	if err == nil {
		err = os.Rename(v.file+".tmp", v.file)
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

func (v *victim) address() string { return strings.TrimPrefix(v.URL, "http://") }

// asks makes a call of the kubelet.
func (v *victim) asks(path string, code int) string {
	v.t.Helper()
	body, _, err := v.kubelet.Call(context.Background(), path, code)
	if err != nil {
		v.t.Fatal(err)
	}
	return body
}

// drains calls the hook as the kubelet does, lets the work end, and holds that
// the drain ends as it should.
func (v *victim) drains() {
	v.t.Helper()
	type answer struct {
		body string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		body, _, err := v.kubelet.Call(context.Background(), "/prestop", http.StatusOK)
		answered <- answer{body, err}
	}()
	wait.For(v.t, "the drain", func() error {
		_, _, err := v.kubelet.Call(context.Background(), "/readyz", http.StatusServiceUnavailable)
		return err
	})
	v.inFlight(0)
	if a := <-answered; a.err != nil || !strings.Contains(a.body, `"outcome": "drained"`) {
		v.t.Fatalf("the drain: %s %v", a.body, a.err)
	}
}

// deployed is the memory limit in deploy/, in bytes.
func deployed(t testing.TB) int64 {
	t.Helper()
	file := filepath.Join("..", "..", "deploy", "kustomize", "common", "pod.yaml")
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

// from opens a connection from an address of this machine.
func from(t testing.TB, source, address string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

var _ = fmt.Sprint
