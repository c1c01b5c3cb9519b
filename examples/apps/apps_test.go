// Package apps_test runs each app with the real sidecar: during a drain clients are
// asked to disconnect, and the drain counts the work in flight and waits for it.
package apps_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
)

var lastcall sidecar.Program

func TestMain(m *testing.M) { os.Exit(sidecar.Main(m, &lastcall)) }

// patience is how long one step may take on a busy machine.
const patience = time.Minute

// language is an app in one of the folders.
type language struct {
	name    string
	command func(t *testing.T) (program string, args []string)
	// workers means that there are several processes, each with its own file.
	workers bool
	done    string // the answer to an upload
	// early means that the app checks for the drain before its work, so that a
	// request from before the drain may be answered without Connection: close.
	early bool
}

var languages = []language{
	{name: "go", command: func(t *testing.T) (string, []string) {
		program := filepath.Join(t.TempDir(), "app")
		build(t, servers.Need(t, "go"), "build", "-o", program, "./go")
		return program, nil
	}},
	{name: "java", early: true, command: func(t *testing.T) (string, []string) {
		classes := t.TempDir()
		build(t, servers.Need(t, "javac"), "-d", classes, "java/App.java", "java/Leaving.java")
		return "java", servers.Java("-cp", classes, "App")
	}},
	{name: "python", workers: true, command: func(*testing.T) (string, []string) {
		return "gunicorn", []string{"app:app"}
	}},
	{name: "node", workers: true, command: func(*testing.T) (string, []string) {
		return "node", []string{"app.mjs"}
	}},
	{name: "../eureka-spring", done: "done in 1 ms", command: func(t *testing.T) (string, []string) {
		return "java", servers.Spring(t, "eureka-app", "--eureka.client.enabled=false", "--server.port=${PORT}")
	}},
}

func TestClientsAreToldToLeaveAndWorkIsWaitedFor(t *testing.T) {
	for _, lang := range languages {
		t.Run(lang.name, func(t *testing.T) {
			p := start(t, lang)
			alive := p.connect(t)
			if alive.get(t) {
				t.Fatal("an app that serves ends a keep-alive connection")
			}
			upload := p.upload(t)
			p.awaitInFlight(t, 1)

			answered := p.sidecar.PreStop(t.Context())
			p.awaitFile(t, true)
			if !alive.get(t) {
				t.Error("no Connection: close while the pod drains")
			}
			alive.wantEnd(t)
			p.sidecar.Await(t, "the drain to wait for the upload", func(s drain.Status) bool { return s.Phase == drain.Draining })
			p.awaitInFlight(t, 1)
			select {
			case a := <-answered:
				t.Fatalf("the hook returns while a request is in flight: %d %s", a.Code, a.Body)
			default:
			}

			if told := upload.end(t); !told && !lang.early {
				t.Error("no Connection: close in the answer to a request from before the drain")
			}
			report := sidecar.Wait(t, answered, patience).Report(t)
			if report.Outcome != drain.OutcomeDrained || report.InFlight == nil || *report.InFlight != 0 {
				t.Errorf("the report: %+v, want drained and nothing in flight", report)
			}
		})
	}
}

func TestADrainThatIsTakenBack(t *testing.T) {
	for _, lang := range languages {
		t.Run(lang.name, func(t *testing.T) {
			p := start(t, lang)
			upload := p.upload(t)
			p.awaitInFlight(t, 1)
			p.sidecar.Want(t, http.StatusAccepted, http.MethodPost, "/drain")
			p.awaitFile(t, true)
			if !p.connect(t).get(t) {
				t.Error("no Connection: close while the pod drains")
			}
			p.sidecar.Want(t, http.StatusOK, http.MethodDelete, "/drain")
			p.awaitFile(t, false)
			alive := p.connect(t)
			for range 2 {
				if alive.get(t) {
					t.Error("Connection: close, though the drain was taken back")
				}
			}
			if upload.end(t) {
				t.Error("Connection: close in an answer after the drain was taken back")
			}
			p.awaitInFlight(t, 0)
		})
	}
}

func TestTheNumberOfAWorkerThatDiesGoesWithIt(t *testing.T) {
	for _, lang := range languages {
		if !lang.workers {
			continue
		}
		t.Run(lang.name, func(t *testing.T) {
			p := start(t, lang, func(folder string) {
				// Left by an earlier run of the app's container.
				if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(filepath.Join(folder, "4711"), []byte("3\n"), 0o600)); err != nil {
					t.Fatal(err)
				}
			})
			p.awaitInFlight(t, 0)
			upload := p.upload(t)
			p.awaitInFlight(t, 1)
			if err := syscall.Kill(p.busyWorker(t), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if _, err := upload.from.ReadByte(); err == nil {
				t.Fatal("an answer from a worker that was killed")
			}
			p.awaitInFlight(t, 0)
			// Another worker replaces it, and counts. The killed one may have been
			// the only one that was ready.
			p.awaitUp(t)
			for range 2 {
				next := p.upload(t)
				p.awaitInFlight(t, 1)
				next.end(t)
				p.awaitInFlight(t, 0)
			}
			report := sidecar.Wait(t, p.sidecar.PreStop(t.Context()), patience).Report(t)
			if report.Outcome != drain.OutcomeDrained {
				t.Errorf("the report: %+v, want drained", report)
			}
		})
	}
}

// A servlet may answer after its filters have returned.
func TestAServletThatAnswersLater(t *testing.T) {
	p := start(t, languages[len(languages)-1])
	quick := p.connect(t)
	quick.ask(t, "/work/later?ms=1")
	quick.answer(t, "done in 1 ms")
	p.awaitInFlight(t, 0)
	p.connect(t).ask(t, "/work/later?ms=60000")
	p.awaitInFlight(t, 1)
	answered := p.sidecar.PreStop(t.Context())
	p.awaitFile(t, true)
	quick.ask(t, "/work/later?ms=1")
	if !quick.answer(t, "done in 1 ms") {
		t.Error("no Connection: close while the pod drains")
	}
	p.sidecar.Await(t, "the drain to wait", func(s drain.Status) bool { return s.Phase == drain.Draining })
	p.awaitInFlight(t, 1)
	p.sidecar.Want(t, http.StatusOK, http.MethodDelete, "/drain")
	sidecar.Wait(t, answered, patience)
}

// Each folder can be copied alone: an app also runs without a sidecar.
func TestWithoutASidecar(t *testing.T) {
	for _, lang := range languages {
		t.Run(lang.name, func(t *testing.T) {
			p := &pod{address: freeport.Address(t)}
			p.run(t, lang)
			alive := p.connect(t)
			for range 2 {
				if alive.get(t) {
					t.Error("Connection: close without a drain")
				}
			}
		})
	}
}

// The code in a README is the code that runs.
func TestReadmesShowWhatRuns(t *testing.T) {
	block := regexp.MustCompile("(?s)```(?:go|java|python|js)\n(.*?)```")
	for _, lang := range languages {
		if strings.HasPrefix(lang.name, "..") {
			continue // its own README says more
		}
		text, err := os.ReadFile(filepath.Join(lang.name, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		var sources strings.Builder
		files, err := filepath.Glob(filepath.Join(lang.name, "*.*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if filepath.Ext(file) == ".md" {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sources.Write(squeeze(source))
		}
		blocks := block.FindAllSubmatch(text, -1)
		if len(blocks) == 0 {
			t.Errorf("%s/README.md shows no code", lang.name)
		}
		for _, b := range blocks {
			if !strings.Contains(sources.String(), string(squeeze(b[1]))) {
				t.Errorf("%s/README.md shows code that is in none of its files:\n%s", lang.name, b[1])
			}
		}
	}
}

// squeeze removes the indentation.
func squeeze(text []byte) []byte {
	return regexp.MustCompile(`(?m)^[ \t]+`).ReplaceAll(text, nil)
}

// pod is an app and its sidecar.
type pod struct {
	address  string // of the app
	volume   string // shared by both
	inFlight string
	draining string
	done     string // the answer to an upload
	app      *servers.Process
	sidecar  *sidecar.Sidecar
}

// start starts both, as a pod would. It calls prepare first, with the path of the
// counter's folder.
func start(t *testing.T, lang language, prepare ...func(folder string)) *pod {
	t.Helper()
	volume := t.TempDir()
	p := &pod{
		address: freeport.Address(t), volume: volume,
		inFlight: filepath.Join(volume, "inflight"), draining: filepath.Join(volume, "draining"),
	}
	for _, f := range prepare {
		f(p.inFlight)
	}
	shared := []string{"LASTCALL_DRAINING_FILE=" + p.draining, "LASTCALL_FILE_PATH=" + p.inFlight}
	p.run(t, lang, shared...)
	p.sidecar = sidecar.Start(t, &lastcall, append(shared,
		"LASTCALL_COUNTERS=file", "LASTCALL_GRACE_PERIOD=90s", "LASTCALL_ENDPOINTS_WAIT=0s", "LASTCALL_QUIET=200ms")...)
	return p
}

// run starts the app, and returns when it answers.
func (p *pod) run(t *testing.T, lang language, env ...string) {
	t.Helper()
	p.done = cmp.Or(lang.done, "4 bytes")
	program, args := lang.command(t)
	_, port, err := net.SplitHostPort(p.address)
	if err != nil {
		t.Fatal(err)
	}
	env = append([]string{"--chdir=" + lang.name, "PORT=" + port, "LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"}, env...)
	p.app = servers.StartProgram(t, env, program, args...)
	p.awaitUp(t)
}

// awaitUp waits until the app answers.
func (p *pod) awaitUp(t *testing.T) {
	t.Helper()
	p.app.Wait(t, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/ready", http.NoBody)
		if err != nil {
			return err
		}
		request.Close = true
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
}

// awaitFile waits until the draining file exists, or does not exist.
func (p *pod) awaitFile(t *testing.T, there bool) {
	t.Helper()
	p.sidecar.Eventually(t, fmt.Sprintf("the draining file to be there: %t", there), func() error {
		_, err := os.Stat(p.draining)
		if (err == nil) != there {
			return fmt.Errorf("the file's state is wrong: %w", err)
		}
		return nil
	})
}

// awaitInFlight waits until the sidecar has counted n requests.
func (p *pod) awaitInFlight(t *testing.T, n int64) {
	t.Helper()
	p.sidecar.Await(t, fmt.Sprintf("%d requests in flight", n), func(s drain.Status) bool {
		return s.InFlight != nil && *s.InFlight == n && len(s.Counters) == 1 && s.Counters[0].Error == ""
	})
}

// busyWorker returns the process whose file contains 1.
func (p *pod) busyWorker(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.inFlight, "[0-9]*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(text) == "1\n" {
			pid, err := strconv.Atoi(filepath.Base(file))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("no worker's file says 1: %v", files)
	return 0
}

// connection is a connection that a client keeps open.
type connection struct {
	net.Conn
	from *bufio.Reader
}

func (p *pod) connect(t *testing.T) *connection {
	t.Helper()
	conn := servers.Connect(t, p.address)
	return &connection{conn, bufio.NewReader(conn)}
}

// get sends a request, and reports whether the answer has Connection: close.
func (c *connection) get(t *testing.T) (last bool) {
	t.Helper()
	c.ask(t, "/work?ms=0")
	return c.answer(t, "")
}

func (c *connection) ask(t *testing.T, path string) {
	t.Helper()
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: app\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

// answer reads an answer, which must begin with want, and reports whether it has
// Connection: close.
func (c *connection) answer(t *testing.T, want string) (last bool) {
	t.Helper()
	response, err := http.ReadResponse(c.from, nil)
	if err != nil {
		t.Fatalf("a request is answered with %v", err)
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), want) {
		t.Fatalf("answered %s %q", response.Status, body)
	}
	return response.Close
}

// wantEnd waits until the app has closed the connection.
func (c *connection) wantEnd(t *testing.T) {
	t.Helper()
	if _, err := c.from.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after Connection: close the connection gives %v, want its end", err)
	}
}

// upload is a request in flight: the end of its body has not been sent.
type upload struct {
	*connection
	done string
}

func (p *pod) upload(t *testing.T) upload {
	t.Helper()
	c := p.connect(t)
	if _, err := io.WriteString(c, "POST /work HTTP/1.1\r\nHost: app\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 4\r\n\r\nms="); err != nil {
		t.Fatal(err)
	}
	return upload{c, p.done}
}

// end sends the end of the body, and reports whether the answer has Connection:
// close.
func (u upload) end(t *testing.T) (last bool) {
	t.Helper()
	if _, err := io.WriteString(u, "1"); err != nil {
		t.Fatal(err)
	}
	return u.answer(t, u.done)
}

func build(t *testing.T, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = servers.GoEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}
