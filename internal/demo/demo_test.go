package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain runs the tests, or one of the demo's apps if a test has started it.
func TestMain(m *testing.M) {
	if os.Getenv(appVariable) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signalled()
	_, err := Run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// quicker is a faster version of the demo, since nobody watches.
var quicker = timing{
	pods:      3,
	clients:   12,
	shortest:  20 * time.Millisecond,
	longest:   600 * time.Millisecond,
	think:     50 * time.Millisecond,
	cache:     200 * time.Millisecond,
	fetch:     500 * time.Millisecond,
	refresh:   1200 * time.Millisecond,
	heartbeat: 200 * time.Millisecond,
	grace:     30 * time.Second,
	endpoints: 200 * time.Millisecond,
	quiet:     500 * time.Millisecond,
	calm:      500 * time.Millisecond,
}

// In the whole demo, requests fail without Lastcall, and none fails with it.
func TestDemo(t *testing.T) {
	s := newStage(t)
	out := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ok, err := s.play(t.Context(), newScreen(f, os.Getenv))
	written, _ := os.ReadFile(out)
	text := string(written)
	if err != nil || !ok {
		t.Fatalf("got %v, %v\n%s", ok, err, text)
	}
	leavesNothing(t, s)

	counts := func(act string) (requests, failed int) {
		t.Helper()
		row := regexp.MustCompile(`(?m)^` + act + ` +(\d+) +(\d+) +\d+\.\d s `).FindStringSubmatch(text)
		if row == nil {
			t.Fatalf("no counts %s in\n%s", act, text)
		}
		requests, _ = strconv.Atoi(row[1])
		failed, _ = strconv.Atoi(row[2])
		return requests, failed
	}
	if requests, failed := counts(without); failed == 0 || requests < 50 {
		t.Errorf("%s: %d requests, %d failed: want some to fail", without, requests, failed)
	}
	if requests, failed := counts(with); failed != 0 || requests < 50 {
		t.Errorf("%s: %d requests, %d failed: want none to fail", with, requests, failed)
	}
	if strings.Contains(text, "\x1b") {
		t.Error("something was drawn although the output is not a terminal")
	}

	// Each old pod goes through all phases in order, after its successor has
	// started.
	_, second, _ := strings.Cut(text, "\nWITH LASTCALL\n")
	for old, successor := range map[string]string{"web-1": "web-4", "web-2": "web-5", "web-3": "web-6"} {
		rest := second
		for _, want := range []string{
			old + ": serving", successor + ": serving", old + ": withdrawing, preStop", old + ": propagating",
			old + ": draining", old + ": stopping, SIGTERM, 0 in flight", old + ": gone, after ",
		} {
			_, after, found := strings.Cut(rest, want)
			if !found {
				t.Fatalf("no %q, or not in its place, in\n%s", want, second)
			}
			rest = after
		}
	}
}

// A user may press Ctrl-C at any time.
func TestStopped(t *testing.T) {
	for _, after := range []string{
		"WITHOUT LASTCALL",
		"web-1: stopping",
		"WITH LASTCALL",
		"web-1: propagating",
	} {
		t.Run(after, func(t *testing.T) {
			s := newStage(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out trigger
			out.when, out.do = []byte(after), cancel
			if ok, err := s.play(ctx, &screen{out: &out}); ok || err == nil || !strings.Contains(err.Error(), "stopped") {
				t.Fatalf("got %v, %v\n%s", ok, err, out.String())
			}
			leavesNothing(t, s)
		})
	}
}

// trigger calls a function once a text has been written.
type trigger struct {
	bytes.Buffer
	when []byte
	do   func()
}

func (t *trigger) Write(p []byte) (int, error) {
	n, err := t.Buffer.Write(p)
	if bytes.Contains(t.Bytes(), t.when) {
		t.do()
	}
	return n, err
}

// If a sidecar does not start, the error contains its log.
func TestSidecarThatFails(t *testing.T) {
	s := newStage(t)
	s.refresh = -time.Second
	var out bytes.Buffer
	ok, err := s.play(t.Context(), &screen{out: &out})
	if ok || err == nil || !strings.Contains(err.Error(), "LASTCALL_EUREKA_CLIENT_REFRESH=-1s: must not be negative") {
		t.Fatalf("got %v, %v, want the sidecar's words", ok, err)
	}
	leavesNothing(t, s)
}

// A pod that cannot drain within its budget is a failure, even if no request
// failed.
func TestDrainThatExpires(t *testing.T) {
	s := newStage(t)
	s.pods, s.clients = 1, 1
	s.grace, s.refresh = 6*time.Second, time.Minute
	var out bytes.Buffer
	ok, err := s.play(t.Context(), &screen{out: &out})
	if ok || err == nil || !strings.Contains(err.Error(), "web-1's drain: expired") {
		t.Fatalf("got %v, %v, want the drain's outcome", ok, err)
	}
	leavesNothing(t, s)
}

func TestVolumes(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "none"))
	dir, err := volumes()
	if err != nil || !strings.HasPrefix(dir, "/dev/shm/") {
		t.Fatalf("got %s, %v, want a folder in memory", dir, err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
}

func TestSummary(t *testing.T) {
	s := &stage{timing: quicker}
	at := func(title string, requests int, failures ...string) result {
		r := result{snapshot: snapshot{title: title, requests: requests}}
		for _, text := range failures {
			r.failures = append(r.failures, failure{err: text})
		}
		for n := range 3 {
			r.leavings = append(r.leavings, leaving{time.Duration(n+1) * time.Second, map[phase]time.Duration{stopping: time.Second}})
		}
		return r
	}
	refused := "dial tcp 127.0.0.1:1: connect: connection refused"
	drained := at(with, 120)
	for _, l := range drained.leavings {
		l.phases[withdrawing], l.phases[propagating], l.phases[draining] = 10*time.Millisecond, 1500*time.Millisecond, 2*time.Second
	}
	const table = `
                 requests failed   gone in  withdraw propagate   drain    stop
without Lastcall      100      3     2.0 s         -         -       -   1.0 s
with Lastcall         120      0     2.0 s     0.0 s     1.5 s   2.0 s   1.0 s
(times are those of a pod, the mean of 3)

3 of 100 requests failed without Lastcall (connection refused),
none of 120 with it.`
	if got := s.summary(at(without, 100, "EOF", refused, refused), drained); got != table {
		t.Errorf("got %s\nwant %s", got, table)
	}
	if got := s.summary(at(without, 100), drained); !strings.HasSuffix(got, "No request failed with Lastcall, and this time none without it either.") {
		t.Errorf("got %s", got)
	}
	if got := s.summary(at(without, 100, "EOF"), at(with, 120, refused)); !strings.Contains(got, "1 of 120 requests failed with Lastcall, the first by: "+refused) {
		t.Errorf("got %s", got)
	}
}

// newStage returns a stage whose apps are the test's own process, and whose
// sidecars are the real program.
func newStage(t *testing.T) *stage {
	t.Helper()
	// The race detector's wait of a second at exit does not apply to the apps.
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	return &stage{timing: quicker, appCommand: []string{os.Args[0]}, sidecarCommand: []string{lastcall(t), "serve"}}
}

// lastcall builds the program; the go command caches the result.
func lastcall(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "lastcall")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, "lastcall/cmd/lastcall")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does it
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building lastcall: %v\n%s", err, out)
	}
	return binary
}

// leavesNothing checks that no process and no file is left.
func leavesNothing(t *testing.T, s *stage) {
	t.Helper()
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", s.dir, err)
	}
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it has just ended
		}
		// The format is: PID (COMMAND) STATE PPID …; the command may contain any
		// character.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if fields[1] == strconv.Itoa(os.Getpid()) {
			t.Errorf("a process is still running: %s", stat)
		}
	}
}
