//go:build linux

// Package image builds the image from the project's Dockerfile and runs it
// the way a strict cluster does.
package image

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
)

// sizeLimit is the limit of the image's unpacked size, in bytes.
const sizeLimit = 16_000_000

// patience is how long one operation of a container may take.
const patience = 30 * time.Second

// The version and the commit that the image is built with.
const (
	version = "v1.2.3-test"
	commit  = "0123456789abcdef0123456789abcdef01234567"
)

// roots is the path of the trusted roots for TLS in the image, one of the places
// where Go's crypto/x509 looks for them.
const roots = "/etc/ssl/certs/ca-certificates.crt"

func TestImage(t *testing.T) {
	servers.DependsOn(t, "lastcall/cmd/lastcall")
	b := newBuilder(t)
	b.base()
	id := b.build("")
	image := unpack(t, b.export(id))

	t.Run("it is small", func(t *testing.T) {
		t.Logf("%.1f MB unpacked", float64(image.size)/1e6)
		if image.size > sizeLimit {
			t.Errorf("the image holds %d bytes, want at most %d", image.size, sizeLimit)
		}
	})
	describes(t, image, "/bin/lastcall", "8099/tcp")
	t.Run("it holds what it needs and no more", func(t *testing.T) {
		want := "/bin/lastcall /etc/ssl/certs/ca-certificates.crt"
		if got := strings.Join(image.files, " "); got != want {
			t.Errorf("files %s, want %s", got, want)
		}
		pem, err := os.ReadFile(filepath.Join(image.rootfs, roots))
		if err != nil {
			t.Fatal(err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			t.Errorf("%s holds no certificate", roots)
		}
	})
	t.Run("the same source gives the same image", func(t *testing.T) {
		if again := b.build(""); again != id {
			t.Errorf("a second build gave image %s, the first %s", again, id)
		}
	})
	t.Run("it tells its version", func(t *testing.T) {
		c := start(t, image, nil, "version")
		if err := c.wait(); err != nil {
			t.Fatalf("lastcall version: %v\n%s", err, c.output())
		}
		for _, want := range []string{version, commit[:7]} {
			if !strings.Contains(c.output(), want) {
				t.Errorf("lastcall version says %q, want %s in it", c.output(), want)
			}
		}
	})
	t.Run("it serves, and ends well at SIGTERM", func(t *testing.T) {
		address := freeport.Address(t)
		c := start(t, image, []string{
			"LASTCALL_LISTEN=" + address,
			"LASTCALL_ENDPOINTS_WAIT=0s",
			"LASTCALL_QUIET=100ms",
		}, "serve")
		if err := c.ready(http.DefaultClient, "http://"+address+"/readyz"); err != nil {
			t.Fatalf("%v\n%s", err, c.output())
		}
		if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := c.wait(); err != nil {
			t.Fatalf("after SIGTERM: %v, want exit code 0\n%s", err, c.output())
		}
	})
}

// describes checks the image's metadata: user, program, port and source.
func describes(t *testing.T, image *image, program, port string) {
	t.Helper()
	t.Run("it asks for no root, and tells its source", func(t *testing.T) {
		if image.config.User != "65532:65532" {
			t.Errorf("user %q, want 65532:65532: Kubernetes takes only a number for non-root", image.config.User)
		}
		if got := strings.Join(image.config.Entrypoint, " "); got != program {
			t.Errorf("entry point %q, want %s", got, program)
		}
		if _, exposed := image.config.ExposedPorts[port]; !exposed {
			t.Errorf("exposed ports %v, want %s", image.config.ExposedPorts, port)
		}
		for label, want := range map[string]string{"version": version, "revision": commit} {
			if got := image.config.Labels["org.opencontainers.image."+label]; got != want {
				t.Errorf("label %s is %q, want %q", label, got, want)
			}
		}
	})
}

// container is a process under runc, with the restrictions of Kubernetes' Pod
// Security level "restricted" and a read-only root file system.
type container struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   string // file with its output
	ended chan struct{}
	err   error // the result of Wait; valid after ended is closed
}

// start runs the image's entry point with the arguments args.
func start(t *testing.T, image *image, env []string, args ...string) *container {
	t.Helper()
	runc := servers.Need(t, "runc")
	dir := t.TempDir()
	id := fmt.Sprintf("lastcall-test-%d-%s", os.Getpid(), filepath.Base(dir))
	writeSpec(t, dir, image, env, args)
	cmd := exec.Command(runc, "--root", filepath.Join(dir, "state"), "run", "--bundle", dir, id)
	cmd.SysProcAttr = namespaces()
	out, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() // the process has its own copy
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &container{t: t, cmd: cmd, out: out.Name(), ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		select {
		case <-c.ended:
		default:
			// runc does not pass SIGKILL on to the container.
			kill := exec.Command(runc, "--root", filepath.Join(dir, "state"), "delete", "--force", id)
			kill.SysProcAttr = namespaces()
			if out, err := kill.CombinedOutput(); err != nil {
				t.Errorf("ending the container: %v\n%s", err, out)
			}
			<-c.ended
		}
	})
	return c
}

// wait waits until the container has ended, and returns its error.
func (c *container) wait() error {
	select {
	case <-c.ended:
		return c.err
	case <-time.After(patience):
		return fmt.Errorf("it did not end within %v", patience)
	}
}

// output returns what the container has printed so far.
func (c *container) output() string {
	c.t.Helper()
	out, err := os.ReadFile(c.out)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(out)
}

// ready waits until url answers 200 "ok".
func (c *container) ready(client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	var last error
	for {
		err := get(ctx, client, url)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-retry.C:
		case <-c.ended:
			return fmt.Errorf("it ended (%w) before it was ready", c.err)
		case <-ctx.Done():
			return fmt.Errorf("it was not ready within %v: %w", patience, last)
		}
	}
}

func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, 1000))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || strings.TrimSpace(string(body)) != "ok" {
		return fmt.Errorf("%s: %s %q, want 200 and ok", url, response.Status, body)
	}
	return nil
}

// namespaces lets an ordinary user run containers, as root of a user namespace. It
// returns nil for root itself.
func namespaces() *syscall.SysProcAttr {
	if os.Geteuid() == 0 {
		return nil
	}
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
}
