// Package apiservertest starts a real kube-apiserver with an etcd, and nothing
// else of a cluster, for tests of admission.
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

// token is the administrator's, gateToken that of the ServiceAccount that
// deploy/admission/server/rbac.yaml is about, and managerToken that of the controllers.
const token, gateToken, managerToken = "test-token", "gate-token", "manager-token"

// Version is a kube-apiserver that e2e/node/build builds.
type Version struct {
	Name     string
	Policies string // the version of the API that has MutatingAdmissionPolicy
	program  string
	flags    []string
}

// Versions returns those that there are: that of the node of the end-to-end tests,
// where policies are beta and switched off, and a newer one.
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
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	built := filepath.Join(cache, "lastcall", "node", "bin")
	t.Setenv("PATH", built+string(os.PathListSeparator)+os.Getenv("PATH"))
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
			// The server signs its own certificate, in a folder that ends with the test.
			Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		},
	}
	s.process = servers.StartProgram(t, nil, v.program, append([]string{
		"--etcd-servers=" + etcd.URL, "--cert-dir=" + dir,
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		// Nobody calls it by an address of its own; newer ones refuse the loopback's.
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

// Wait waits until ready returns no error, at most two minutes.
func (s *Server) Wait(t testing.TB, ready func() error) {
	t.Helper()
	s.process.Wait(t, ready)
}

// writeKey makes the key that service accounts' tokens are signed with.
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
