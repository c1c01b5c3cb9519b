package steps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lastcall/drain"
)

func withdrawError(t *testing.T, yaml string) string {
	t.Helper()
	err := fromYAML(t, drain.Pod{}, yaml).Withdraw(within(t))
	if err == nil {
		t.Fatal("Withdraw succeeds, want an error")
	}
	return err.Error()
}

// The error for an unexpected answer contains the address, the answer and what
// to do.
func TestAnswers(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/ok", http.StatusTemporaryRedirect)
		case "/forbidden":
			http.Error(w, "no\x1b[31m rights", http.StatusForbidden)
		case "/large":
			w.Write(make([]byte, maxAnswer+1))
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		case "/broken":
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "short")
		default:
			io.WriteString(w, "fine")
		}
	})
	for _, test := range []struct{ step, want string }{
		{"get: URL/redirect?token=hidden", "answered 307 Temporary Redirect: redirects are not followed"},
		{"get: URL/forbidden", "answered 403 Forbidden: check the credentials, and whether they may do this: no [31m rights"},
		{"get: URL/large", "longer than 4 MiB"},
		{"get: URL/endless", "longer than 4 MiB"},
		{"get: URL/broken", "reading the answer"},
		{"get: URL/ok\n  contains: gone", `condition not met: contains "gone": fine`},
		{"get: URL/ok\n  when: a == 1", "not JSON"},
		{"get: URL/ok\n  ok: [204]", "answered 200 OK: fine"},
		{"get: URL/ok\n  set: {a: b}", "not JSON"},
		{"get: http://127.0.0.1:1/", "connection refused"},
	} {
		got := withdrawError(t, "withdraw:\n- "+strings.ReplaceAll(test.step, "URL", url))
		if !strings.Contains(got, test.want) || !strings.Contains(got, "steps.yaml:2") || strings.Contains(got, "hidden") || strings.ContainsRune(got, '\x1b') {
			t.Errorf("%s: got %q, want %q and the line in it", test.step, got, test.want)
		}
	}
}

// A call that hangs ends at the file's timeout, and a section with its context.
func TestTimes(t *testing.T) {
	hang := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if got := withdrawError(t, "timeout: 100ms\nwithdraw:\n- get: "+hang); !strings.Contains(got, "no answer within 100ms") {
		t.Errorf("got %q", got)
	}
	r := fromYAML(t, drain.Pod{}, "timeout: 100ms\nwithdraw:\n- get: "+hang+"\n  done: [timeout]")
	do(t, "Withdraw with done: timeout", r.Withdraw)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r = fromYAML(t, drain.Pod{}, "withdraw:\n- get: "+hang+"\n  done: [timeout]")
	if err := r.Withdraw(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a section that ran out of time: got %v", err)
	}
}

// Servers are tried in turn: if one refuses, hangs or fails, the next one is
// tried. The server that answered is tried first from then on.
func TestServersInTurn(t *testing.T) {
	var asked atomic.Int64
	good := serve(t, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); io.WriteString(w, "ok") })
	failing := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no leader", http.StatusServiceUnavailable)
	})
	hang := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	t.Setenv("SERVERS", "http://127.0.0.1:1, "+failing+"/,"+hang+","+good)
	r := fromYAML(t, drain.Pod{}, "servers: ${SERVERS}\ntimeout: 200ms\nwithdraw:\n- post: /out")
	do(t, "Withdraw", r.Withdraw)
	began := time.Now()
	do(t, "Withdraw again", r.Withdraw)
	if asked.Load() != 2 || r.caller.last != 3 || time.Since(began) > 190*time.Millisecond {
		t.Errorf("the good server was asked %d times, the last is %d, after %v", asked.Load(), r.caller.last, time.Since(began))
	}

	// An answer that the file names is no reason to try the next server.
	r = fromYAML(t, drain.Pod{}, fmt.Sprintf("servers: [%s, %s]\nwithdraw:\n- post: /out\n  done: [{code: 503, contains: no leader}]", failing, good))
	do(t, "Withdraw", r.Withdraw)
	if asked.Load() != 2 {
		t.Error("the next server was asked although the file knows the answer of the first")
	}

	// If no server succeeds, the error has the reason of each.
	got := withdrawError(t, fmt.Sprintf("servers: [%s, 'http://127.0.0.1:1']\nwithdraw:\n- post: /out", failing))
	if !strings.Contains(got, "503") || !strings.Contains(got, "refused") {
		t.Errorf("got %q", got)
	}
}

// A server that hangs leaves the others their share of a short time.
func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if got := share(ctx, 3*time.Second, 3); got != time.Second {
			t.Errorf("got %v, want a third", got)
		}
		if got := share(ctx, 500*time.Millisecond, 3); got != 500*time.Millisecond {
			t.Errorf("got %v, want the limit of a call", got)
		}
	})
}

// A request has the method, the body, the headers, and the token that the file
// holds now.
func TestRequests(t *testing.T) {
	type request struct{ method, path, body, kind, token, extra, host string }
	got := make(chan request, 1)
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- request{r.Method, r.URL.Path, string(body), r.Header.Get("Content-Type"), r.Header.Get("Authorization"), r.Header.Get("X-Extra"), r.Host}
	})
	token := filepath.Join(t.TempDir(), "token")
	put := func(s string) {
		if err := os.WriteFile(token, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("first\n")
	t.Setenv("TOKEN_PATH", token)
	r := fromYAML(t, drain.Pod{Name: "pod-0"}, strings.ReplaceAll(`
headers: {X-Extra: all, Host: pd.example.com}
token_file: ${TOKEN_PATH}
withdraw:
- patch: URL/a/${LASTCALL_POD_NAME}
  body: '{"name":"${LASTCALL_POD_NAME}"}'
restore:
- post: URL/form
  headers: {Content-Type: text/plain, X-Extra: one}
  body: a=b
`, "URL", url))
	do(t, "Withdraw", r.Withdraw)
	if want := (request{"PATCH", "/a/pod-0", `{"name":"pod-0"}`, "application/json", "Bearer first", "all", "pd.example.com"}); <-got != want {
		t.Errorf("want %v", want)
	}
	put("second")
	do(t, "Restore", r.Restore)
	if want := (request{"POST", "/form", "a=b", "text/plain", "Bearer second", "one", "pd.example.com"}); <-got != want {
		t.Errorf("want %v", want)
	}
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	if err := r.Restore(within(t)); err == nil || !strings.Contains(err.Error(), "token_file") {
		t.Errorf("without the token's file: %v", err)
	}
}

// Nothing listens, and the file gives that a meaning. A call that fails for
// another reason does not count as refused.
func TestRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	yaml := "find:\n- get: http://" + address + "/\n  absent: [refused]\nwithdraw:\n- get: http://" + address
	r := fromYAML(t, drain.Pod{}, yaml)
	do(t, "Withdraw of an unknown instance", r.Withdraw)
	if !isWithdrawn(t, r) {
		t.Error("what is not there is not withdrawn")
	}
	if found, err := r.Find(within(t)); err == nil {
		t.Errorf("Find found %q", found)
	}
}
