package counting

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lastcall/internal/test/sidecar"
)

var program sidecar.Program

func TestMain(m *testing.M) {
	if IsWorld() {
		World()
	}
	os.Exit(sidecar.Main(m, &program))
}

// sanity matches a run for each server and for each protocol of a client. It takes
// less than a minute.
const sanity = `^((go|tomcat|uvicorn|nginx|haproxy)/(cleartext/fresh|TLS/WebSocket)` +
	`|(node|netty|gunicorn|php)/(cleartext/(kept|pooled by nginx)|TLS/(back to back|pooled by HAProxy|fresh, session resumed, TLS 1.2))` +
	`|grpc(-go/cleartext|io/TLS)/gRPC with pings)/(200ms|8s)/hook 1s/young/0.3ms` +
	`|^go/cleartext/(kept|fresh)/8s/hook 1s/young/loopback` +
	`|^pattern/cleartext/(no request|PROXY protocol, no request|HTTP/2, streams of several lengths|MQTT, idle)/(0s|8s)/hook 1s/young/loopback`

// The runs are valid, whatever the judges' verdicts are.
func TestRuns(t *testing.T) {
	results := Play(t, &program, Settings{Match: sanity, AtOnce: 100, Log: filepath.Join(t.TempDir(), "log.jsonl"), Everything: true})
	seen := make(map[string]*Result)
	for _, r := range results {
		seen[r.String()] = &r
		if r.Broken != "" {
			t.Errorf("%s: %s", r.String(), r.Broken)
			continue
		}
		if want := r.Request > r.Hook; want != (len(r.InFlight) > 0) {
			t.Errorf("%s: in flight at the hook: %v", r.String(), r.InFlight)
		}
		for _, judge := range Judges() {
			v := r.Verdicts[judge]
			if v.Outcome == outcomeWaiting != v.Needless || v.Outcome != outcomeWaiting && v.Outcome != outcomeDrained {
				t.Errorf("%s: %s says %+v", r.String(), judge, v)
			}
			if r.Request < r.Hook && v.Early() {
				t.Errorf("%s: %s was early, and nothing was in flight", r.String(), judge)
			}
		}
		if v := r.Verdicts[Connections]; v.Early() {
			t.Errorf("%s: a connection is open as long as a request is in flight: %+v", r.String(), v)
		}
	}
	for run, needless := range map[string]bool{
		"go/cleartext/kept/8s/hook 1s/young/loopback":  true,
		"go/cleartext/fresh/8s/hook 1s/young/loopback": false,
	} {
		r := seen[run]
		if r == nil {
			t.Errorf("%s was not made", run)
			continue
		}
		if v := r.Verdicts[Connections]; v.Needless != needless {
			t.Errorf("%s: waiting until no connection is open was needless: %v, want %v", run, v.Needless, needless)
		}
		if v := r.Verdicts[Default]; v.Early() {
			t.Errorf("%s: the drain did not wait for the simplest request: %+v", run, v)
		}
	}
}

func TestMatrix(t *testing.T) {
	all := Matrix()
	names := make(map[string]bool)
	for _, r := range all {
		names[r.String()] = true
	}
	if len(names) != len(all) {
		t.Errorf("%d runs have %d names", len(all), len(names))
	}
	if !slices.Equal(all, Matrix()) {
		t.Error("the order is not always the same")
	}
	// A small part has some runs of every kind.
	part, err := Select("", 200)
	if err != nil || len(part) != 200 {
		t.Fatalf("got %d runs, %v", len(part), err)
	}
	for what, has := range map[string]func(*Run) bool{
		"TLS": func(r *Run) bool { return r.TLS }, "cleartext": func(r *Run) bool { return !r.TLS },
		"history": func(r *Run) bool { return r.History }, "young": func(r *Run) bool { return !r.History },
		"far": func(r *Run) bool { return r.Far }, "loopback": func(r *Run) bool { return !r.Far },
	} {
		n := 0
		for _, r := range part {
			if has(&r) {
				n++
			}
		}
		if n < 60 {
			t.Errorf("%s: %d of 200", what, n)
		}
	}
	for _, server := range append(grpcServers(), goServer, "node", "tomcat", "netty", "uvicorn", "gunicorn", "nginx", "haproxy", "php", patternServer) {
		if !slices.ContainsFunc(part, func(r Run) bool { return r.Server == server }) {
			t.Errorf("%s is not among the first 200 runs", server)
		}
	}
	for _, bad := range []string{"(", "no such run"} {
		if _, err := Select(bad, 0); err == nil {
			t.Errorf("%q matches a run", bad)
		}
	}
	t.Logf("%d runs, about %v with 90 at a time", len(all), Longest(all, 90).Round(time.Second))
}

func TestWork(t *testing.T) {
	w := &work{}
	if !w.lastEnd().IsZero() {
		t.Error("there is a last end without any request")
	}
	hook := time.Now().Add(-time.Minute)
	if at, known := needless(hook, w); !known || !at.Equal(hook.Add(endpointsWait+needlessAfter)) {
		t.Errorf("without a request a drain is needless at %v, %v", at, known)
	}
	first, second := w.begin("first"), w.begin("second")
	first(nil)
	between := time.Now()
	if open := w.open(between); len(open) != 1 || open[0].What != "second" || !w.lastEnd().IsZero() || w.answered() != 1 {
		t.Errorf("open: %v", open)
	}
	if _, known := needless(hook, w); known {
		t.Error("a drain counts as needless while a request is in flight")
	}
	v := &Verdict{}
	v.hear(returned{between, outcomeDrained}, hook, w)
	if !v.Early() {
		t.Error("the hook's return was not early")
	}
	v = &Verdict{}
	v.hear(returned{between, "expired"}, hook, w)
	if v.Early() {
		t.Error("an expired drain counts as an early return")
	}
	second(errNotDone)
	if at, known := needless(hook, w); !known || !at.Equal(w.lastEnd().Add(needlessAfter)) {
		t.Errorf("a drain is needless at %v, %v", at, known)
	}
	v = &Verdict{}
	v.hear(returned{time.Now(), outcomeDrained}, hook, w)
	if v.Early() || v.Seconds < 60 {
		t.Errorf("after the last answer: %+v", v)
	}
	if failed := w.failed(); len(failed) != 1 || !errors.Is(failed[0], errNotDone) {
		t.Errorf("failures: %v", failed)
	}
}

func TestEstablished(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for n := range 3 {
		open, err := established()
		if err != nil || open[port] != n {
			t.Fatalf("got %d, %v, want %d", open[port], err, n)
		}
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { accepted.Close() })
	}
}

// A handshake over the link takes one delay in each direction.
func TestLink(t *testing.T) {
	at := &target{from: clientAddress, address: podAddress + ":0"}
	far := make(chan error)
	// A pod's namespace belongs to a process; this one belongs to a thread.
	pod, err := newNamespace(func() (err error) {
		at.clients, err = connectClients()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	if err := pod.do(func() (err error) {
		l, err = net.Listen("tcp4", podAddress+":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				far <- err
				return
			}
			conn.Close()
		}
	}()
	fastest := time.Hour
	for range 20 {
		began := time.Now()
		conn, err := at.dialTCP(context.Background(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fastest = min(fastest, time.Since(began))
		conn.Close()
	}
	if fastest < 2*linkDelay || fastest > 20*linkDelay {
		t.Errorf("a handshake over the link takes %v at the least", fastest)
	}
	l.Close()
	<-far
}

func TestSummary(t *testing.T) {
	result := func(server, client string, history bool, early string, needless bool) Result {
		r := Result{Run: Run{Server: server, Client: client, Request: 8 * time.Second, Hook: time.Second, History: history}, Verdicts: make(map[string]*Verdict)}
		for _, judge := range Judges() {
			r.Verdicts[judge] = &Verdict{}
		}
		if early != "" {
			r.Verdicts[Requests].Open = []string{early}
		}
		r.Verdicts[Connections].Needless = needless
		return r
	}
	broken := result("node", fresh, true, "", false)
	broken.Broken = "refused"
	s := Summarize([]Result{
		result("node", fresh, false, "/delay/8000", false), result("node", fresh, true, "", true),
		result(goServer, kept, true, "", true), result(patternServer, "no request", false, "", false), broken,
	})
	text := s.Markdown()
	for _, want := range []string{
		"| Lastcall's default, `LASTCALL_APP_PORT` alone | 4 | 0 (0.0 %) | 0 (0.0 %) of 2 | 0 (0.0 %) of 2 |",
		"| `LASTCALL_TCP_COUNT=requests`, `LASTCALL_TCP_SILENCE=5s` | 4 | 1 (25.0 %) |",
		"| connections until zero, looked at every second | 4 | 0 (0.0 %) | 0 (0.0 %) of 2 | 2 (100.0 %) of 2 |",
		"1 further runs do not count",
		"| Node | cleartext | fresh | 2 | 0 | 1 | 0 | 0 of 1 | 0 of 1 | 0 | 1 |  |",
		"| cleartext | no request | 1 | 0 | 0 | 0 | 0 of 1 | – | 0 | 0 |  |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if strings.Index(text, "| Go net/http ") > strings.Index(text, "| Node ") {
		t.Errorf("the servers are not in order:\n%s", text)
	}
	// All rows of a table have as many columns as its heading.
	columns := 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "|") {
			columns = 0
			continue
		}
		if n := strings.Count(line, "|"); columns == 0 {
			columns = n
		} else if n != columns {
			t.Errorf("%d columns instead of %d: %s", n, columns, line)
		}
	}
	if got := s.Early(Requests); len(got) != 1 || !strings.Contains(got[0], "/delay/8000") {
		t.Errorf("early: %v", got)
	}
	if got := s.Broken(); len(got) != 1 || !strings.Contains(got[0], "refused") {
		t.Errorf("broken: %v", got)
	}
}
