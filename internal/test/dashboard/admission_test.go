package dashboard

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
)

// startAdmission starts the cluster side, and lets Prometheus scrape it. There is
// no API server, so it exposes all its metrics but is not ready.
func startAdmission(t testing.TB, prom *prometheus) {
	t.Helper()
	const module, command = "../../../admission", "lastcall/admission/cmd/lastcall-admission"
	servers.DependsOnIn(t, module, command)
	dir := t.TempDir()
	built := filepath.Join(dir, "lastcall-admission")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", module, "-o", built, command)
	build.Env = servers.GoEnv()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building it: %v\n%s", err, out)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: none,
contexts: [{name: none, context: {cluster: none}}], clusters: [{name: none, cluster: {server: "http://%s"}}]}`, freeport.Address(t))
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, certificate, key := servers.WriteCertificates(t, dir, "admission")
	address := freeport.Address(t)
	servers.StartProgram(t, nil, built, "serve", "-listen", address, "-gate", "-parameters", "",
		"-cert-file", certificate, "-key-file", key, "-kubeconfig", kubeconfig)
	prom.scrapeAt(t, address, map[string]string{"namespace": "lastcall-system", "pod": "gate", "container": "lastcall-admission", "__scheme__": "https"})
}
