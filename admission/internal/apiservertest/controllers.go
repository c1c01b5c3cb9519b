package apiservertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lastcall/internal/test/servers"
)

// Controllers starts a kube-controller-manager with these controllers, such as
// "statefulset-controller". The process ends with the test.
func (s *Server) Controllers(t testing.TB, controllers ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c",
		"clusters":[{"name":"c","cluster":{"server":%q,"insecure-skip-tls-verify":true}}],
		"users":[{"name":"c","user":{"token":%q}}],
		"contexts":[{"name":"c","context":{"cluster":"c","user":"c"}}]}`, s.url, managerToken)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	servers.StartProgram(t, nil, "kube-controller-manager", "--kubeconfig="+file, "--leader-elect=false",
		"--secure-port=0", "--controllers="+strings.Join(controllers, ","))
}
