package file

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
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"lastcall/internal/test/servers"
)

// TestMain runs the tests, or, if the tests have started it again, the program
// whose work is counted: a web server that keeps its number of requests in
// flight in a file.
func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv("PROGRAM"); role {
	case "":
		os.Exit(m.Run())
	case "master":
		err = master(os.Args[1], os.Args[2])
	case "worker":
		err = worker(os.Args[1], os.Args[2])
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "program:", err)
		os.Exit(1)
	}
}

// workers is how many processes a pre-forking program has.
const workers = 3

// master listens, starts its workers on that socket, and prints its address
// when all of them serve. It ends when its standard input ends.
func master(how, path string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	// Starting a process makes an inherited file blocking for all processes
	// that share it, unless it was blocking before.
	inherited := os.NewFile(socket.Fd(), "socket")
	n := 1
	if how == "folder" {
		n = workers
	}
	var running []*exec.Cmd
	for i := range n {
		file := path
		if how == "folder" {
			file = filepath.Join(path, fmt.Sprintf("worker-%d", i))
		}
		w := exec.Command(os.Args[0], how, file)
		w.Env = append(os.Environ(), "PROGRAM=worker")
		w.ExtraFiles = []*os.File{inherited}
		w.Stderr = os.Stderr
		out, err := w.StdoutPipe()
		if err != nil {
			return err
		}
		// The worker ends with this pipe, and so with its master.
		if _, err := w.StdinPipe(); err != nil {
			return err
		}
		if err := w.Start(); err != nil {
			return err
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			return fmt.Errorf("worker %d: %w", i, err)
		}
		running = append(running, w)
	}
	fmt.Println(listener.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, w := range running {
		_ = w.Process.Signal(syscall.SIGTERM)
	}
	for _, w := range running {
		if err := w.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// worker serves on the socket that it inherited. POST /hold is in flight until
// its body ends. At its end, worker removes its file, as the workers of a
// folder should.
func worker(how, path string) error {
	listener, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	number := &number{path: path, inPlace: how == "in place"}
	if err := number.add(0); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /hold", func(w http.ResponseWriter, r *http.Request) {
		if err := number.add(1); err != nil {
			panic(err)
		}
		control := http.NewResponseController(w)
		if err := errors.Join(control.EnableFullDuplex(), control.Flush()); err != nil {
			panic(err)
		}
		_, _ = io.Copy(w, r.Body)
		// The client has received all of its answer except its end, which
		// follows the return. A careful app can do this without its server's
		// help.
		if err := errors.Join(control.Flush(), number.add(-1)); err != nil {
			panic(err)
		}
	})
	server := &http.Server{Handler: mux}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	// Only the test handles terminal signals.
	signal.Ignore(os.Interrupt)
	term, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("serving")
	orphaned := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(orphaned)
	}()
	select {
	case err := <-failed:
		return err
	case <-orphaned:
	case <-term.Done():
	}
	return errors.Join(server.Close(), os.Remove(path))
}

// number is the number that the program keeps in its file.
type number struct {
	path    string
	inPlace bool

	mu sync.Mutex
	n  int
}

func (n *number) add(d int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.n += d
	text := strconv.Itoa(n.n) + "\n"
	if n.inPlace {
		return os.WriteFile(n.path, []byte(text), 0o600)
	}
	return replace(n.path, text)
}

// replace writes a file in the recommended way.
func replace(path, text string) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// program is a running program, as the test sees it.
type program struct {
	how  string
	path string // what the counter reads
	url  string
	stop func() // ends the program, and waits for its end
}

// start runs the program, which writes its number "in place", by "rename", or
// into a "folder" with one file for each worker.
func start(t *testing.T, how string) *program {
	t.Helper()
	p := &program{how: how, path: filepath.Join(t.TempDir(), "inflight")}
	if how == "folder" {
		if err := os.Mkdir(p.path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0], how, p.path)
	// The race detector's wait at exit would be most of each test's time.
	cmd.Env = append(os.Environ(), "PROGRAM=master", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	in, out := servers.Talk(t, cmd)
	p.stop = sync.OnceFunc(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the program: %v", err)
		}
	})
	t.Cleanup(p.stop)
	addr, err := out.ReadString('\n')
	if err != nil {
		t.Fatalf("the program did not come up: %v", err)
	}
	p.url = "http://" + strings.TrimSpace(addr)
	return p
}

// begin starts a request, and returns once the program works on it.
func (p *program) begin(t *testing.T) (end func()) {
	t.Helper()
	body, finish := io.Pipe()
	// Each request has its own connection, which any worker may accept.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/hold", body)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = finish.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			t.Errorf("the answer: %v", err)
		}
		_ = answer.Body.Close()
	})
	t.Cleanup(func() { _ = finish.Close(); _ = answer.Body.Close() })
	return end
}

// idle leaves a connection open that has received its answer.
func (p *program) idle(t *testing.T) {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	answer, err := (&http.Client{Transport: transport}).Get(p.url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
}
