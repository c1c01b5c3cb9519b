package compare

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// appVariable makes this program an app. drainingVariable holds the path of
// LASTCALL_DRAINING_FILE: while that file exists, the app closes its connections.
const (
	appVariable      = "BENCH_APP"
	drainingVariable = "BENCH_APP_DRAINING_FILE"
)

// lookEvery is how often an app checks for that file. closeAfter is the time from
// the file's creation until the app closes idle connections. Clients may use them
// until then.
const (
	lookEvery  = 50 * time.Millisecond
	closeAfter = 2500 * time.Millisecond
)

// maxWork is the longest work that the app accepts.
const maxWork = time.Minute

// IsApp reports whether this process was started as an app. If so, it must only
// call App and exit with its result.
func IsApp() bool { return os.Getenv(appVariable) != "" }

// App is a web service that takes as long for each request as the request says. It
// shuts down gracefully: on SIGTERM it accepts no new connections and finishes its
// requests. On standard output it prints its address, and then the time at which
// each request arrived and the time at which its answer was passed to the kernel.
// It also ends when its standard input is closed, that is, when its parent ends.
func App() int {
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serve(in io.Reader, out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, format+"\n", args...)
	}
	say("listening %s", listener.Addr())
	server := &http.Server{Handler: worker(say), ReadHeaderTimeout: time.Minute}
	failed := make(chan error, 3)
	if file := os.Getenv(drainingVariable); file != "" {
		server.Handler = closing(file, server.Handler)
		go closeIdle(ctx, file, server)
	}
	go func() { failed <- server.Serve(listener) }()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		failed <- errors.New("the parent process has ended")
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	go func() { failed <- server.Shutdown(context.WithoutCancel(ctx)) }()
	for {
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
	}
}

// closing adds Connection: close to answers while the file exists.
func closing(file string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&farewell{w, file}, r)
	})
}

// farewell checks for the file when the answer begins.
type farewell struct {
	http.ResponseWriter
	file string
}

func (f *farewell) Write(p []byte) (int, error) {
	if exists(f.file) {
		f.Header().Set("Connection", "close")
	}
	return f.ResponseWriter.Write(p)
}

// Unwrap implements the interface that http.ResponseController needs.
func (f *farewell) Unwrap() http.ResponseWriter { return f.ResponseWriter }

func exists(file string) bool {
	_, err := os.Stat(file) //nolint:gosec // set by the benchmark
	return err == nil
}

// closeIdle waits for the file. closeAfter later it closes idle connections, and
// from then on each connection after its answer.
func closeIdle(ctx context.Context, file string, server *http.Server) {
	for !exists(file) {
		if sleep(ctx, lookEvery) != nil {
			return
		}
	}
	if sleep(ctx, closeAfter) == nil {
		server.SetKeepAlivesEnabled(false)
	}
}

// worker handles requests, and reports when they arrive and end.
func worker(say func(format string, args ...any)) http.Handler {
	var last atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := last.Add(1)
		say("began %d %d", id, time.Now().UnixNano())
		defer func() { say("ended %d %d", id, time.Now().UnixNano()) }()
		d, err := time.ParseDuration(r.FormValue("for"))
		if err != nil || d < 0 || d > maxWork {
			http.Error(w, "for must be a duration up to "+maxWork.String(), http.StatusBadRequest)
			return
		}
		if sleep(r.Context(), d) != nil {
			return // the client is gone
		}
		const answer = "done\n"
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = io.WriteString(w, answer)
		_ = http.NewResponseController(w).Flush() // send the answer before it is reported as sent
	})
}

// app is a running App.
type app struct {
	*record
	address string
	cmd     *exec.Cmd
	life    io.Closer // standard input
	exited  chan struct{}
}

// startApp starts command, which is this program, as an app. The app runs until it
// is stopped or this program ends. If draining is not empty, the app closes its
// connections while that file exists.
func startApp(command, draining string) (*app, error) {
	cmd := exec.CommandContext(context.Background(), command)
	cmd.Env = append(os.Environ(), appVariable+"=1", drainingVariable+"="+draining, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	life, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting an app: %w", err)
	}
	a := &app{record: newRecord(), cmd: cmd, life: life, exited: make(chan struct{})}
	lines := bufio.NewScanner(out)
	if lines.Scan() {
		a.address, _ = strings.CutPrefix(lines.Text(), "listening ")
	}
	go func() {
		defer close(a.exited)
		for lines.Scan() {
			a.hear(lines.Text())
		}
		_ = cmd.Wait() // it was killed, or its error is on standard error
	}()
	if a.address == "" {
		a.kill()
		return nil, errors.New("starting an app: it does not say where it listens")
	}
	return a, nil
}

// hear adds a line of the app's output to the record.
func (a *app) hear(line string) {
	var what string
	var id int
	var at int64
	if _, err := fmt.Sscan(line, &what, &id, &at); err != nil {
		return // another line
	}
	switch what {
	case "began":
		a.began(id, time.Unix(0, at))
	case "ended":
		a.ended(id, time.Unix(0, at))
	}
}

// terminate sends SIGTERM, and SIGKILL after left.
func (a *app) terminate(left time.Duration) {
	_ = a.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-a.exited:
	case <-timer.C:
		a.kill()
	}
}

func (a *app) kill() {
	_ = a.cmd.Process.Kill() // it may have ended already
	_ = a.life.Close()
	<-a.exited
}
