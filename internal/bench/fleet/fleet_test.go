package fleet

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// small returns a fleet that a real server can be filled with quickly.
func small() Size { return Size{App: 4, Others: 6} }

// The server's answers have the same fields and about the same size as a real
// server's.
func TestAnswersAreLikeARealServers(t *testing.T) {
	servers.NeedEureka(t)
	servers, err := servers.StartEureka(servers.EurekaOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(servers.Stop)
	own := servers.URLs[0]
	const port = 8080
	e, stop := Start(small(), 10*time.Millisecond, port)
	t.Cleanup(stop)

	// The real server gets the same instances, and writes them in its own way.
	e.mu.Lock()
	instances := map[string][]string{"ORDERS": nil, "SERVICE-0": nil}
	for n := range small().App {
		instances["ORDERS"] = append(instances["ORDERS"], e.pod.json(e, "ORDERS", n))
	}
	for n := range small().Others {
		instances["SERVICE-0"] = append(instances["SERVICE-0"], e.pod.json(e, "SERVICE-0", n))
	}
	e.mu.Unlock()
	for app, all := range instances {
		for _, body := range all {
			if code, answer := call(t, http.MethodPost, own+"/apps/"+app, `{"instance":`+body+`}`, ""); code != http.StatusNoContent {
				t.Fatalf("registering in %s: status %d: %s", app, code, answer)
			}
		}
	}

	one := "/apps/ORDERS/" + e.id()
	for _, base := range []string{own, e.URL} {
		if code, answer := call(t, http.MethodPut, base+one+"/status?value=OUT_OF_SERVICE", "", ""); code != http.StatusOK {
			t.Fatalf("overriding the status at %s: status %d: %s", base, code, answer)
		}
	}
	for _, what := range []string{one, "/apps/ORDERS", "/apps", "/apps/delta"} {
		for _, kind := range []string{"application/json", "application/xml"} {
			if what == one && kind == "application/xml" {
				continue // clients never ask for it
			}
			t.Run(kind+what, func(t *testing.T) {
				var genuine string
				wait.Until(t, "the real server's cache being renewed", func() bool {
					_, genuine = call(t, http.MethodGet, own+what, "", kind)
					return strings.Contains(genuine, "OUT_OF_SERVICE")
				})
				var fake string
				wait.Until(t, "the fake server's cache being renewed", func() bool {
					_, fake = call(t, http.MethodGet, e.URL+what, "", kind)
					return strings.Contains(fake, "OUT_OF_SERVICE")
				})
				got, want := names(t, fake, kind), names(t, genuine, kind)
				if !slices.Equal(got, want) {
					t.Errorf("fields\n%q\nwant\n%q", got, want)
				}
				if what == "/apps/delta" {
					return // the real server has just had ten registrations, the other has only the pod
				}
				if ratio := float64(len(fake)) / float64(len(genuine)); ratio < 0.97 || ratio > 1.03 {
					t.Errorf("%d bytes, and the real server sends %d:\n%s\n%s", len(fake), len(genuine), fake, genuine)
				}
			})
		}
	}
}

func call(t *testing.T, method, url, body, accept string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if accept == "" {
		accept = "application/json"
	}
	req.Header.Set("Accept", accept)
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// names returns the names of all fields in an answer, without duplicates.
func names(t *testing.T, answer, kind string) []string {
	t.Helper()
	all := map[string]bool{}
	if kind == "application/json" {
		var root any
		if err := json.Unmarshal([]byte(answer), &root); err != nil {
			t.Fatalf("%v: %s", err, answer)
		}
		collect(root, "", all)
		return slices.Sorted(maps.Keys(all))
	}
	decoder := xml.NewDecoder(strings.NewReader(answer))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return slices.Sorted(maps.Keys(all))
		}
		if err != nil {
			t.Fatalf("%v: %s", err, answer)
		}
		if start, ok := token.(xml.StartElement); ok {
			all[start.Name.Local] = true
			for _, a := range start.Attr {
				all[fmt.Sprintf("%s@%s", start.Name.Local, a.Name.Local)] = true
			}
		}
	}
}

func collect(value any, path string, all map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for name, of := range v {
			all[path+"."+name] = true
			collect(of, path+"."+name, all)
		}
	case []any:
		for _, of := range v {
			collect(of, path, all)
		}
	}
}
