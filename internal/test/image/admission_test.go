//go:build linux

package image

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
)

// admissionLimit is the size limit of the cluster side's image, in bytes. Most of
// it is Kubernetes' client.
const admissionLimit = 60_000_000

// TestAdmissionImage is TestImage for the build target of the cluster side.
func TestAdmissionImage(t *testing.T) {
	module := filepath.Join(project, "admission")
	servers.DependsOnIn(t, module, "lastcall/admission/cmd/lastcall-admission")
	// The build has no network access.
	if out, err := exec.CommandContext(t.Context(), "go", "-C", module, "mod", "download").CombinedOutput(); err != nil {
		t.Fatalf("go mod download: %v\n%s", err, out)
	}
	b := newBuilder(t)
	b.base()
	id := b.build("admission")
	image := unpack(t, b.export(id))

	t.Run("it is one program", func(t *testing.T) {
		t.Logf("%.1f MB unpacked", float64(image.size)/1e6)
		if image.size > admissionLimit {
			t.Errorf("the image holds %d bytes, want at most %d", image.size, admissionLimit)
		}
		if got := strings.Join(image.files, " "); got != "/bin/lastcall-admission" {
			t.Errorf("files %s, want /bin/lastcall-admission", got)
		}
	})
	describes(t, image, "/bin/lastcall-admission", "9443/tcp")
	t.Run("the same source gives the same image", func(t *testing.T) {
		if again := b.build("admission"); again != id {
			t.Errorf("a second build gave image %s, the first %s", again, id)
		}
	})
	t.Run("it tells its version", func(t *testing.T) {
		c := start(t, image, nil, "version")
		if err := c.wait(); err != nil {
			t.Fatalf("lastcall-admission version: %v\n%s", err, c.output())
		}
		if !strings.Contains(c.output(), version) {
			t.Errorf("lastcall-admission version says %q, want %s in it", c.output(), version)
		}
	})
	t.Run("it serves, and ends well at SIGTERM", func(t *testing.T) {
		client := certify(t, image)
		address := freeport.Address(t)
		c := start(t, image, nil, "serve", "-listen", address, "-parameters", "", "-linger", "100ms")
		if err := c.ready(client, "https://"+address+"/readyz"); err != nil {
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

// certify puts a certificate for the loopback address where a Secret would be
// mounted, and returns a client that trusts it.
func certify(t *testing.T, image *image) *http.Client {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(image.rootfs, "etc", "lastcall", "tls")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		"tls.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		// The image's user, who is not the user of the test, must be able to read
		// it.
		if err := os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(block), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return server.Client()
}
