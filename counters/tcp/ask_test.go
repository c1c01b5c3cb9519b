package tcp

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// askedServer is a server that is asked what it speaks, and its log.
type askedServer struct {
	port   int
	log    func() string
	client *http.Client // for HTTP/1, or for HTTP/2 if the server speaks only that; nil: for gRPC
	scheme string
}

// askedServers are the servers, with their names in docs/tcp.md.
var askedServers = []struct {
	name   string
	start  func(t *testing.T) *askedServer
	want   protocol // without the text for people
	twice  bool     // it is asked again, with TLS, when a client may have made a handshake
	lines  int      // the maximum in its log for all questions; more are stack traces, which some servers log for a client without TLS
	access bool     // its log has a line for each request
}{
	{"nginx", nginxAsked("", false), protocol{http: true, http1: true}, true, 2, true},
	{"nginx, http2", nginxAsked(" http2", true), protocol{http: true, http2: true}, false, 0, true},
	{"nginx, ssl", nginxAsked(" ssl", false), protocol{http: true, http1: true, tls: true}, true, 1, true},
	{"nginx, ssl http2", nginxAsked(" ssl http2", false), protocol{http: true, http2: true, tls: true}, true, 1, true},
	{"HAProxy", haproxyAsked("", ""), protocol{http: true, http2: true}, false, 0, true},
	{"HAProxy, ssl", haproxyAsked("ssl crt ", ""), protocol{http: true, http2: true, tls: true}, false, 2, true},
	{"HAProxy, ssl, alpn http/1.1", haproxyAsked("ssl crt ", " alpn http/1.1"), protocol{http: true, http1: true, tls: true}, false, 2, true},
	{"HAProxy, ssl, alpn h2,http/1.1", haproxyAsked("ssl crt ", " alpn h2,http/1.1"), protocol{http: true, http2: true, tls: true}, false, 2, true},
	{"Node, http", programAsked("node", "testdata/server.js"), protocol{http: true, http1: true}, false, 0, false},
	{"Node, https", secureAsked(programAsked("node", "testdata/server.js")), protocol{http: true, http1: true, tls: true}, false, 0, false},
	{"Tomcat", javaAsked("TomcatServer", true), protocol{http: true, http1: true}, false, 0, false},
	{"Tomcat, HTTP/2", javaAsked("TomcatServer", false), protocol{http: true, http2: true}, false, 0, false},
	{"Tomcat, TLS", secureAsked(javaAsked("TomcatServer", true)), protocol{http: true, http1: true, tls: true}, false, 0, false},
	{"Tomcat, TLS, HTTP/2", secureAsked(javaAsked("TomcatServer", false)), protocol{http: true, http2: true, tls: true}, false, 0, false},
	{"Netty", javaAsked("NettyServer", true), protocol{http: true, http1: true}, false, 0, false},
	{"Netty, TLS", secureAsked(javaAsked("NettyServer", true)), protocol{http: true, http1: true, tls: true}, false, 56, false},
	{"JDK, HttpServer", javaAsked("JdkServer", false), protocol{http: true, http1: true}, false, 0, false},
	{"JDK, HttpsServer", secureAsked(javaAsked("JdkServer", false)), protocol{http: true, http1: true, tls: true}, false, 0, false},
	{"Python, http.server", programAsked("python3", "testdata/server.py"), protocol{}, false, 2, true},
	{"Python, http.server by ssl", secureAsked(programAsked("python3", "testdata/server.py")), protocol{tls: true}, false, 54, true},
	{"uvicorn", pythonAsked("-m", "uvicorn", "--app-dir", "testdata", "apps:asgi", "--port"), protocol{http: true, http1: true}, false, 2, true},
	{"gunicorn", pythonAsked("-m", "gunicorn", "--chdir", "testdata", "apps:wsgi", "--access-logfile", "-", "--bind"), protocol{http: true, http1: true}, false, 1, true},
	{"grpcio", pythonAsked("testdata/apps.py"), protocol{http: true, http2: true}, false, 0, false},
	{"grpc-go", programAsked("grpc-app", "serve"), protocol{http: true, http2: true}, false, 0, false},
	{"Go", goAsked(false, false), protocol{http: true, http1: true}, false, 0, false},
	{"Go, h2c", goAsked(false, true), protocol{http: true, http2: true}, false, 0, false},
	{"Go, TLS", goAsked(true, true), protocol{http: true, http2: true, tls: true}, false, 2, false},
	{"Go, TLS, HTTP/1 alone", goAsked(true, false), protocol{http: true, http1: true, tls: true}, false, 2, false},
}

func readAll(files ...string) func() string {
	return func() string {
		var text strings.Builder
		for _, f := range files {
			b, _ := os.ReadFile(f) // it may not exist yet
			text.Write(b)
		}
		return text.String()
	}
}

// clientOf returns a client of HTTP/1, or of HTTP/2 without TLS.
func clientOf(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: wait.Patience}
}

func nginxAsked(listen string, onlyHTTP2 bool) func(t *testing.T) *askedServer {
	return func(t *testing.T) *askedServer {
		t.Helper()
		port, keys := freeport.Port(t), ""
		scheme := "http"
		if strings.Contains(listen, "ssl") {
			c := newCertificate(t, false)
			keys, scheme = "ssl_certificate "+c.chain+"; ssl_certificate_key "+c.key+";", "https"
		}
		p, dir := startNginxWith(t, fmt.Sprintf("access_log access.log;\nserver { listen 127.0.0.1:%d%s; %s location / { return 200 ok; } }", port, listen, keys))
		(&app{Process: p, port: port}).listensOn(t)
		return &askedServer{port, readAll(filepath.Join(dir, "access.log"), filepath.Join(dir, "error.log")), clientOf(t, onlyHTTP2), scheme}
	}
}

func haproxyAsked(bind, alpn string) func(t *testing.T) *askedServer {
	return func(t *testing.T) *askedServer {
		t.Helper()
		port, scheme, options := freeport.Port(t), "http", ""
		if bind != "" {
			options, scheme = bind+newCertificate(t, false).both+alpn, "https"
		}
		p, logFile := startHAProxyWith(t, fmt.Sprintf("frontend web\n    bind 127.0.0.1:%d %s\n    http-request return status 200", port, options))
		(&app{Process: p, port: port}).listensOn(t)
		return &askedServer{port, readAll(logFile), clientOf(t, false), scheme}
	}
}

// programAsked starts a program with its port and a backend that is never
// asked.
func programAsked(program string, args ...string) func(t *testing.T) *askedServer {
	return func(t *testing.T) *askedServer {
		t.Helper()
		return startAsked(t, nil, program, args...)
	}
}

func startAsked(t *testing.T, env []string, program string, args ...string) *askedServer {
	t.Helper()
	a := &app{port: freeport.Port(t)}
	s := &askedServer{port: a.port, client: clientOf(t, false), scheme: "http"}
	last := []string{strconv.Itoa(a.port)}
	switch {
	case program == "grpc-app", args[0] == "testdata/apps.py":
		s.client = nil
		last = append(last, "127.0.0.1:1")
	case args[len(args)-1] == "--bind":
		last = []string{"127.0.0.1:" + last[0]}
	case args[len(args)-1] != "--port":
		last = append(last, "127.0.0.1:1")
	}
	var logFile string
	a.Process, logFile = startLogged(t, append(env, "LOG=1", "PYTHONUNBUFFERED=1"), program, append(args, last...)...)
	s.log = readAll(logFile)
	a.listensOn(t)
	return s
}

func javaAsked(class string, http1 bool) func(t *testing.T) *askedServer {
	return func(t *testing.T) *askedServer {
		t.Helper()
		env := []string{"HTTP1_ALONE=1"}
		if !http1 {
			env = nil
		}
		return startAsked(t, env, "java", javaArgs(t, class)...)
	}
}

// secureAsked makes start use a certificate.
func secureAsked(start func(t *testing.T) *askedServer) func(t *testing.T) *askedServer {
	return func(t *testing.T) *askedServer {
		c := newCertificate(t, false)
		t.Setenv("TLS_CERT", c.chain)
		t.Setenv("TLS_KEY", c.key)
		s := start(t)
		s.scheme = "https"
		return s
	}
}

func pythonAsked(args ...string) func(t *testing.T) *askedServer {
	return func(t *testing.T) *askedServer {
		t.Helper()
		return startAsked(t, []string{"PYTHONPATH=" + servers.Need(t, "python.d")}, "python3", args...)
	}
}

// lockedBuffer is a buffer that may be written and read concurrently.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func goAsked(secure, http2 bool) func(t *testing.T) *askedServer {
	return func(t *testing.T) *askedServer {
		t.Helper()
		var text lockedBuffer
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
		server.Config.ErrorLog = log.New(&text, "", 0)
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP1(true)
		scheme := "http"
		if secure {
			scheme = "https"
			server.EnableHTTP2 = http2
			server.Config.Protocols.SetHTTP2(http2)
			server.StartTLS()
		} else {
			server.Config.Protocols.SetUnencryptedHTTP2(http2)
			server.Start()
		}
		t.Cleanup(server.Close)
		return &askedServer{server.Listener.Addr().(*net.TCPAddr).Port, text.String, clientOf(t, false), scheme}
	}
}

// loopback returns the address of a port on this machine.
func loopback(port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
}

func TestWhatServersSpeak(t *testing.T) {
	const marker = "/the-request-after-it"
	for _, test := range askedServers {
		t.Run(test.name, func(t *testing.T) {
			s := test.start(t)
			request := func() {
				if s.client == nil {
					return
				}
				before := strings.Count(s.log(), marker)
				resp, err := s.client.Get(fmt.Sprintf("%s://127.0.0.1:%d%s", s.scheme, s.port, marker))
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if test.access {
					wait.Until(t, "the request's line in the log", func() bool { return strings.Count(s.log(), marker) > before })
				}
			}
			request() // the server has started
			before := s.log()
			asked := 0
			note := func(netip.AddrPort) { asked++ }
			p, err := ask(t.Context(), loopback(s.port), note)
			if err != nil {
				t.Fatal(err)
			}
			if p.mayBeTLS != test.twice {
				t.Errorf("may it be TLS: %v, want %v", p.mayBeTLS, test.twice)
			}
			if p.mayBeTLS {
				if p, err = askTLS(t.Context(), loopback(s.port), note, p); err != nil {
					t.Fatal(err)
				}
			}
			request() // now everything before is in the log
			said := strings.TrimPrefix(s.log(), before)
			n := 0
			var logged []string
			for line := range strings.Lines(said) {
				if !strings.Contains(line, marker) {
					logged = append(logged, line)
					n++
				}
				if test.lines > 2 {
					continue
				}
				for _, bad := range []string{"[error]", "[crit]", "[alert]", "ERROR", "SEVERE", "Traceback", "Exception", "panic"} {
					if strings.Contains(line, bad) {
						t.Errorf("logged as an error: %s", line)
					}
				}
			}
			t.Logf("ROW | %s | %s | %d | %d |%q", test.name, p.found, asked, n, logged)
			if n > test.lines {
				t.Errorf("%d lines, want %d at most: %q", n, test.lines, logged)
			}
			found := p.found
			p.found = ""
			test.want.asked = true
			if p != test.want {
				t.Errorf("found %q, %+v, want %+v", found, p, test.want)
			}
		})
	}
}

// Servers that do not speak HTTP, or speak it badly.
func TestWhatOthersSpeak(t *testing.T) {
	c := newCertificate(t, false)
	mutual := func(version uint16, protocols ...string) func(net.Conn) {
		return func(conn net.Conn) {
			secure := tls.Server(conn, &tls.Config{
				Certificates: []tls.Certificate{c.Certificate}, ClientAuth: tls.RequireAndVerifyClientCert,
				MinVersion: version, MaxVersion: version, NextProtos: protocols,
			})
			if secure.Handshake() == nil {
				t.Error("a client without a certificate was taken")
			}
		}
	}
	for _, test := range []struct {
		name  string
		serve func(net.Conn)
		limit time.Duration
		want  protocol
	}{
		{"it speaks first", func(conn net.Conn) {
			io.WriteString(conn, "220 mail.example ESMTP\r\n")
			io.Copy(io.Discard, conn)
		}, 0, protocol{}},
		{"silence", func(conn net.Conn) { io.Copy(io.Discard, conn) }, 300 * time.Millisecond, protocol{}},
		{"it closes at once", func(net.Conn) {}, 0, protocol{}},
		{"it closes when it has read", func(conn net.Conn) { conn.Read(make([]byte, 100)) }, 0, protocol{}},
		{"a reset", func(conn net.Conn) {
			conn.Read(make([]byte, 100))
			conn.(*net.TCPConn).SetLinger(0)
		}, 0, protocol{}},
		{"garbage", func(conn net.Conn) { conn.Write([]byte{0xff, 0, 0x80, 1, 2, 3}) }, 0, protocol{}},
		{"Redis", func(conn net.Conn) { io.WriteString(conn, "-ERR unknown command 'PRI'\r\n") }, 0, protocol{}},
		{"nothing but an alert", func(conn net.Conn) { conn.Write([]byte{0x15, 3, 1, 0, 2, 2, 70}) }, 0, protocol{}},
		{"endless data", func(conn net.Conn) {
			for {
				if _, err := conn.Write(bytes.Repeat([]byte("x"), 1<<16)); err != nil {
					return
				}
			}
		}, 0, protocol{}},
		{"an endless answer of HTTP/1", func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n")
			for {
				if _, err := conn.Write(bytes.Repeat([]byte("x"), 1<<16)); err != nil {
					return
				}
			}
		}, 0, protocol{http: true, http1: true}},
		{"an answer of HTTP/1, byte by byte", drip("HTTP/1.1 400 Bad Request\r\n\r\n"), 10 * time.Second, protocol{http: true, http1: true}},
		{"byte by byte, that it wants TLS", drip("HTTP/1.1 400 Bad Request\r\n\r\nthis is an HTTPS port"), 10 * time.Second, protocol{http: true, http1: true}},
		{"bytes for ever", drip("HTTP/1.1 400 Bad Request\r\n" + strings.Repeat("x", answerLimit)), 500 * time.Millisecond, protocol{http: true, http1: true}},
		{"settings of HTTP/2, byte by byte", drip("\x00\x00\x00\x04\x00\x00\x00\x00\x00"), 10 * time.Second, protocol{http: true, http2: true}},
		{"a client's certificate, TLS 1.2", mutual(tls.VersionTLS12), 0, protocol{tls: true}},
		{"a client's certificate, TLS 1.3", mutual(tls.VersionTLS13), 0, protocol{tls: true}},
		{"a client's certificate, TLS 1.2, HTTP/2", mutual(tls.VersionTLS12, "h2", "http/1.1"), 0, protocol{http: true, http2: true, tls: true}},
		{"a client's certificate, TLS 1.3, HTTP/2", mutual(tls.VersionTLS13, "h2", "http/1.1"), 0, protocol{http: true, http2: true, tls: true}},
		{"a client's certificate, TLS 1.2, HTTP/1", mutual(tls.VersionTLS12, "http/1.1"), 0, protocol{http: true, http1: true, tls: true}},
		{"a client's certificate, TLS 1.3, HTTP/1", mutual(tls.VersionTLS13, "http/1.1"), 0, protocol{http: true, http1: true, tls: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var serving sync.WaitGroup
			serving.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					serving.Go(func() {
						defer conn.Close()
						conn.SetDeadline(time.Now().Add(wait.Patience))
						test.serve(conn)
					})
				}
			})
			defer serving.Wait()
			defer l.Close()
			limit := test.limit
			if limit == 0 {
				limit = 5 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			var ends []netip.AddrPort
			began := time.Now()
			p, err := ask(ctx, loopback(l.Addr().(*net.TCPAddr).Port), func(end netip.AddrPort) { ends = append(ends, end) })
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > limit+5*time.Second {
				t.Errorf("it took %v, want %v at most", took, limit)
			}
			t.Logf("ROW | %s | %s", test.name, p.found)
			if len(ends) == 0 || len(ends) > 4 || p.found == "" {
				t.Errorf("asked from %v, found %q", ends, p.found)
			}
			p.found, test.want.asked = "", true
			if p != test.want {
				t.Errorf("found %+v, want %+v", p, test.want)
			}
		})
	}
}

// drip writes text byte by byte.
func drip(text string) func(net.Conn) {
	return func(conn net.Conn) {
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for i := range len(text) {
			if _, err := io.WriteString(conn, text[i:i+1]); err != nil {
				return
			}
			<-ticker.C
		}
	}
}

func TestNobodyIsAsked(t *testing.T) {
	l := listenOn(t, "127.0.0.1:0")
	l.Close()
	if p, err := ask(t.Context(), loopback(l.port), func(netip.AddrPort) { t.Error("somebody was") }); err == nil {
		t.Errorf("found %+v where nobody listens", p)
	}
}

// Many servers log an error when a connection is reset, no matter how much they
// were still sending.
func TestConnectionsAreLeftWithoutAReset(t *testing.T) {
	c := newCertificate(t, false)
	pair, err := tls.LoadX509KeyPair(c.chain, c.key)
	if err != nil {
		t.Fatal(err)
	}
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secure), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			ended := make(chan error, 1)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					ended <- err
					return
				}
				defer conn.Close()
				if secure {
					conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}})
				}
				if _, err := io.ReadFull(conn, make([]byte, len(preface))); err != nil {
					ended <- err
					return
				}
				// More than is read of an answer, all of it available at once.
				answer := "HTTP/1.1 405 Method Not Allowed\r\n\r\n" + strings.Repeat("x", 4*answerLimit)
				if _, err := io.WriteString(conn, answer); err != nil {
					ended <- err
					return
				}
				_, err = io.Copy(io.Discard, conn)
				ended <- err
			}()
			if _, err := question(t.Context(), loopback(l.Addr().(*net.TCPAddr).Port), func(netip.AddrPort) {}, secure, preface); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Errorf("the server met an error: %v", err)
			}
		})
	}
}
