// Package nginxpython_test runs the example's nginx.
package nginxpython_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
)

// While the draining file exists, each answer has Connection: close, and is
// otherwise unchanged.
func TestNginxIsTold(t *testing.T) {
	dir := t.TempDir()
	draining := filepath.Join(dir, "draining")
	address := start(t, dir, draining)
	client := servers.Client(t)
	ask := func() *http.Response {
		t.Helper()
		response, err := client.Post("http://"+address+"/upload?a=b", "text/plain", strings.NewReader("a body"))
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusOK {
			t.Fatalf("answered %s", response.Status)
		}
		return response
	}
	for range 2 {
		if ask().Close {
			t.Error("Connection: close without a drain")
		}
		if err := os.WriteFile(draining, []byte("a drain\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if !ask().Close {
			t.Error("no Connection: close while the pod drains")
		}
		if err := os.Remove(draining); err != nil {
			t.Fatal(err)
		}
	}
}

// The configuration in README.md is the one that runs.
func TestReadmeShowsWhatRuns(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile("nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(readme), "```nginx\n")
	shown, _, _ = strings.Cut(shown, "```")
	if shown == "" || !strings.Contains(unindented(string(config)), unindented(shown)) {
		t.Errorf("README.md shows configuration that is not in nginx.conf:\n%s", shown)
	}
}

func unindented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimLeft(line, " "))
	}
	return b.String()
}

// start starts nginx with the example's configuration, but other paths and ports.
func start(t *testing.T, dir, draining string) (address string) {
	t.Helper()
	text, err := os.ReadFile("nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	address = freeport.Address(t)
	app := servers.StartBackend(t)
	changes := []string{
		"listen 8080;", "listen " + address + ";",
		"127.0.0.1:8000", app.Address,
		"/lastcall/draining", draining,
		" /tmp/", " " + dir + "/",
		"worker_processes 2;", "worker_processes 2; user root;", // root can read the test's folder
	}
	for n := 0; n < len(changes); n += 2 {
		if !strings.Contains(string(text), changes[n]) {
			t.Fatalf("nginx.conf lacks %q", changes[n])
		}
	}
	config := strings.NewReplacer(changes...).Replace(string(text))
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	nginx := servers.StartProgram(t, nil, "nginx", "-e", "stderr", "-p", dir, "-c", file)
	nginx.Wait(t, func() error {
		response, err := http.Get("http://" + address + "/nginx")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("answered %s", response.Status)
		}
		return nil
	})
	return address
}
