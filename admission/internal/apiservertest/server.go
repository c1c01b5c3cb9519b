// Package apiservertest starts a real kube-apiserver with an etcd for tests of
// admission, without other parts of a cluster.
package apiservertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
)

// token is the administrator's token. gateToken is the one of the ServiceAccount in
// deploy/admission/server/rbac.yaml, and managerToken is the one of the controllers.
const token, gateToken, managerToken = "test-token", "gate-token", "manager-token"

// Version is a kube-apiserver that e2e/node/build builds.
type Version struct {
	Name     string
	Policies string // the API version of MutatingAdmissionPolicy
	program  string
	flags    []string
}

// Versions returns the available versions: the one of the end-to-end tests' node, in
// which policies are beta and disabled by default, and a newer one.
func Versions() []Version {
	return []Version{
		{Name: "1.34", Policies: "v1beta1", program: "kube-apiserver", flags: []string{
			"--feature-gates=MutatingAdmissionPolicy=true",
			"--runtime-config=admissionregistration.k8s.io/v1beta1=true",
		}},
		{Name: "1.37", Policies: "v1", program: "kube-apiserver-new"},
	}
}

// Server is a running API server.
type Server struct {
	process *servers.Process
	url     string
	client  *http.Client
}

// Start starts a kube-apiserver. It ends with the test.
func Start(t testing.TB, v Version) *Server {
	t.Helper()
	dir := t.TempDir()
	etcd := servers.StartEtcd(t, 1, false)[0]
	key := writeKey(t, dir)
	tokens := filepath.Join(dir, "tokens.csv")
	if err := os.WriteFile(tokens, []byte(token+",admin,admin,system:masters\n"+managerToken+",system:kube-controller-manager,manager,system:masters\n"+
		gateToken+",system:serviceaccount:lastcall-system:lastcall-admission,gate,\"system:serviceaccounts,system:serviceaccounts:lastcall-system\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freeport.Port(t)
	s := &Server{
		url: fmt.Sprintf("https://127.0.0.1:%d", port),
		client: &http.Client{
			Timeout: time.Minute,
			// The server's certificate is self-signed and stored in a temporary folder.
			Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		},
	}
	s.process = servers.StartProgram(t, nil, v.program, append([]string{
		"--etcd-servers=" + etcd.URL, "--cert-dir=" + dir,
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		// No client uses the advertised address, and newer versions reject a loopback
		// address.
		"--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--token-auth-file=" + tokens, "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + key, "--service-account-key-file=" + key,
	}, v.flags...)...)
	s.Wait(t, func() error {
		_, err := s.Do(t.Context(), http.MethodGet, "/readyz", nil)
		return err
	})
	return s
}

// Wait waits up to two minutes until ready returns no error.
func (s *Server) Wait(t testing.TB, ready func() error) {
	t.Helper()
	s.process.Wait(t, ready)
}

// writeKey creates the key that signs service accounts' tokens, and returns its file.
func writeKey(t testing.TB, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "serviceaccounts.key")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Stop ends the server before the test does.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.process.Signal(t, syscall.SIGKILL)
	s.process.WaitExit(t)
}
