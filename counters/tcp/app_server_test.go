package tcp

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// asProgram is the variable that makes the test binary run as another program.
const asProgram = "TEST_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(asProgram) {
	case "":
		os.Exit(m.Run())
	case "app":
		goApp(os.Args[1], os.Args[2])
	case "count":
		countAsProgram(os.Args[1:])
	}
}

// goApp is the app of the tests. It listens on a port and asks the backend when
// it may answer.
func goApp(port, backend string) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Addr: "127.0.0.1:" + port, Handler: goHandler(backend), Protocols: protocols, ReadHeaderTimeout: time.Minute}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}

func goHandler(backend string) http.Handler {
	wait := func(id string) {
		resp, err := http.Get("http://" + backend + "/hold?id=" + id)
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	mux.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) {
		wait(r.FormValue("id"))
		io.WriteString(w, "ok")
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "ok")
	})
	mux.HandleFunc("/download", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 32<<20)) })
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "tick\n")
		http.NewResponseController(w).Flush()
		for _, id := range r.URL.Query()["id"] {
			wait(id)
			io.WriteString(w, "tick\n")
			http.NewResponseController(w).Flush()
		}
	})
	mux.Handle("/websocket", websocket.Server{Handler: func(ws *websocket.Conn) {
		for {
			var message string
			if websocket.Message.Receive(ws, &message) != nil {
				return
			}
			if !strings.HasPrefix(message, "no answer") {
				websocket.Message.Send(ws, message)
			}
		}
	}})
	mux.Handle("/pings", websocket.Server{Handler: func(ws *websocket.Conn) {
		ws.PayloadType = websocket.PingFrame
		for _, id := range ws.Request().URL.Query()["id"] {
			wait(id)
			ws.Write(nil)
		}
		io.Copy(io.Discard, ws)
	}})
	// Like a gRPC stream: each message is answered while the request continues.
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		b := make([]byte, 1000)
		for {
			n, err := r.Body.Read(b)
			w.Write(b[:n])
			http.NewResponseController(w).Flush()
			if err != nil {
				return
			}
		}
	})
	return mux
}

// gate holds back the app's answer to one request.
type gate struct {
	id         string
	came, open chan struct{}
}

// backend is what the app asks whether it may answer.
type backend struct {
	address string
	mu      sync.Mutex
	gates   map[string]*gate
}

func startBackend(t testing.TB) *backend {
	b := &backend{gates: make(map[string]*gate)}
	server := httptest.NewServer(b)
	b.address = server.Listener.Addr().String()
	t.Cleanup(func() {
		b.releaseAll()
		server.CloseClientConnections()
		server.Close()
	})
	return b
}

// gate returns a new closed gate.
func (b *backend) gate() *gate {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := &gate{id: strconv.Itoa(len(b.gates) + 1), came: make(chan struct{}), open: make(chan struct{})}
	b.gates[g.id] = g
	return g
}

func (b *backend) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	g := b.gates[r.FormValue("id")]
	b.mu.Unlock()
	close(g.came)
	<-g.open
}

func (b *backend) releaseAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range b.gates {
		g.release()
	}
}

// reached waits until the app has asked.
func (g *gate) reached(t testing.TB) {
	t.Helper()
	select {
	case <-g.came:
	case <-time.After(wait.Patience):
		t.Fatal("the request has not reached the app")
	}
}

func (g *gate) release() {
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

// app is one of the servers whose connections are counted, with its backend. It
// mostly runs in its own process.
type app struct {
	*backend
	*servers.Process
	port  int
	http2 int          // the port that speaks HTTP/2, if there is one
	tls   *tls.Config  // what its clients need, if it speaks TLS
	hand  net.Listener // set if the test itself is the app

	speaks    map[int]protocol // by port, once the port was asked
	questions []netip.AddrPort // the connections on which it was asked
}

func (a *app) address() string { return fmt.Sprintf("127.0.0.1:%d", a.port) }

// serverApps are the servers against which the tests run.
var serverApps = map[string]func(t testing.TB) *app{
	"go":     startGo,
	"tomcat": func(t testing.TB) *app { return startJava(t, "TomcatServer") },
	"netty":  func(t testing.TB) *app { return startJava(t, "NettyServer") },
	"jdk":    func(t testing.TB) *app { return startJava(t, "JdkServer") },
	"python": func(t testing.TB) *app { return startApp(t, nil, "python3", "testdata/server.py") },
	"nginx":  startNginx,
}

func startGo(t testing.TB) *app {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := startApp(t, []string{asProgram + "=app"}, self)
	a.http2 = a.port
	return a
}

// startGoTLS starts the app in Go with TLS, in this process.
func startGoTLS(t testing.TB) *app {
	t.Helper()
	b := startBackend(t)
	server := httptest.NewUnstartedServer(goHandler(b.address))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that disconnect during the handshake
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() {
		b.releaseAll()
		server.CloseClientConnections()
		server.Close()
	})
	port := server.Listener.Addr().(*net.TCPAddr).Port
	return &app{backend: b, port: port, http2: port, tls: &tls.Config{InsecureSkipVerify: true}}
}

// javaArgs are java's arguments for one of the servers in testdata/java.
func javaArgs(t testing.TB, class string) []string {
	t.Helper()
	return servers.Java("-cp", servers.Need(t, "tcp-servers.jar"), class)
}

// startJava starts one of the servers in testdata/java.
func startJava(t testing.TB, class string) *app {
	t.Helper()
	a := startApp(t, nil, "java", javaArgs(t, class)...)
	if class == "TomcatServer" {
		a.http2 = a.port
	}
	return a
}

// startNginx starts nginx in front of the app in Go.
func startNginx(t testing.TB) *app {
	t.Helper()
	behind := startGo(t)
	n := servers.StartNginx(t, &servers.Backend{Address: behind.address()})
	return &app{backend: behind.backend, Process: n.Process, port: n.Port, http2: n.HTTP2}
}

// startApp starts a program. Its last arguments are its port and the backend's
// address.
func startApp(t testing.TB, env []string, program string, args ...string) *app {
	t.Helper()
	a := &app{backend: startBackend(t), port: freeport.Port(t)}
	a.Process = servers.StartProgram(t, env, program, append(args, strconv.Itoa(a.port), a.backend.address)...)
	a.Wait(t, func() error {
		if listening, err := NewApp(a.port).Listening(t.Context()); err != nil || !listening {
			return fmt.Errorf("it does not listen: %w", err)
		}
		return nil
	})
	return a
}
