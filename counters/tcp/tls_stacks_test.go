package tcp

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// certificate is a server's self-signed certificate with its key.
type certificate struct {
	tls.Certificate
	chain, key string // PEM files; the key is in PKCS #8
	both       string // one file with both of them
}

// newCertificate makes a certificate with an RSA key, or with an ECDSA key.
func newCertificate(t testing.TB, withRSA bool) *certificate {
	t.Helper()
	var key crypto.Signer
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if withRSA {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	encodedKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, blocks ...*pem.Block) string {
		var text []byte
		for _, b := range blocks {
			text = append(text, pem.EncodeToMemory(b)...)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	chain, private := &pem.Block{Type: "CERTIFICATE", Bytes: der}, &pem.Block{Type: "PRIVATE KEY", Bytes: encodedKey}
	return &certificate{
		Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		chain:       write("chain.pem", chain), key: write("key.pem", private), both: write("both.pem", chain, private),
	}
}

// env makes the servers in testdata speak TLS.
func (c *certificate) env() []string { return []string{"TLS_CERT=" + c.chain, "TLS_KEY=" + c.key} }

// startLogged is StartProgram with the program's output written to a file.
func startLogged(t testing.TB, env []string, program string, args ...string) (p *servers.Process, logFile string) {
	t.Helper()
	logFile = filepath.Join(t.TempDir(), "log")
	const redirected = `log=$1; shift; exec "$@" >"$log" 2>&1`
	p = servers.StartProgram(t, env, "sh", append([]string{"-c", redirected, "sh", logFile, servers.Need(t, program)}, args...)...)
	t.Cleanup(func() {
		if text, err := os.ReadFile(logFile); t.Failed() && err == nil {
			t.Logf("the log of %s ends with:\n%s", program, text[max(0, len(text)-4000):])
		}
	})
	return p, logFile
}

// listensOn waits until the program listens on the app's port.
func (a *app) listensOn(t testing.TB) {
	t.Helper()
	a.Wait(t, func() error {
		if listening, err := NewApp(a.port).Listening(t.Context()); err != nil || !listening {
			return fmt.Errorf("it does not listen: %w", err)
		}
		return nil
	})
}

// startTLSGo starts the app in Go, in this process, without HTTP/2.
func startTLSGo(t testing.TB, c *certificate) *app {
	t.Helper()
	b := startBackend(t)
	server := httptest.NewUnstartedServer(goHandler(b.address))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{c.Certificate}, NextProtos: []string{"http/1.1"}}
	server.Config.ErrorLog = log.New(t.Output(), "", 0)
	server.StartTLS()
	t.Cleanup(func() {
		b.releaseAll()
		server.CloseClientConnections()
		server.Close()
	})
	return &app{backend: b, port: server.Listener.Addr().(*net.TCPAddr).Port}
}

// startTLSNginx starts nginx with TLS in front of the app in Go.
func startTLSNginx(t testing.TB, c *certificate) *app {
	t.Helper()
	behind := startGo(t)
	a := &app{backend: behind.backend, port: freeport.Port(t)}
	a.Process, _ = startNginxWith(t, fmt.Sprintf(`
    access_log off;
    server {
        listen 127.0.0.1:%d ssl;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate %s;
        ssl_certificate_key %s;
        location / {
            proxy_pass http://%s;
            proxy_http_version 1.1;
        }
    }`, a.port, c.chain, c.key, behind.address()))
	a.listensOn(t)
	return a
}

// startNginxWith starts one process of nginx with text in its http block. It
// writes its logs to files in dir.
func startNginxWith(t testing.TB, text string) (p *servers.Process, dir string) {
	t.Helper()
	dir = t.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	text = `
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {}
http {
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
` + text + "\n}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return servers.StartProgram(t, nil, "nginx", "-e", filepath.Join(dir, "error.log"), "-p", dir, "-c", config), dir
}

// startTLSHAProxy starts HAProxy with TLS in front of the app in Go.
func startTLSHAProxy(t testing.TB, c *certificate) *app {
	t.Helper()
	behind := startGo(t)
	a := &app{backend: behind.backend, port: freeport.Port(t)}
	a.Process, _ = startHAProxyWith(t, fmt.Sprintf(`
frontend web
    bind 127.0.0.1:%d ssl crt %s ssl-min-ver TLSv1.2 alpn http/1.1
    default_backend app
backend app
    server a %s`, a.port, c.both, behind.address()))
	a.listensOn(t)
	return a
}

// startHAProxyWith starts one process of HAProxy, and returns its log file.
func startHAProxyWith(t testing.TB, text string) (p *servers.Process, logFile string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "haproxy.cfg")
	text = `
global
    log stderr format raw local0
defaults
    mode http
    log global
    option httplog
    option dontlognull
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
` + text + "\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startLogged(t, nil, "haproxy", "-db", "-f", config)
}

func startTLSJava(class string) func(testing.TB, *certificate) *app {
	return func(t testing.TB, c *certificate) *app {
		t.Helper()
		return startApp(t, append(c.env(), "HTTP1_ALONE=1"), "java", javaArgs(t, class)...)
	}
}

func startTLSProgram(program string, args ...string) func(testing.TB, *certificate) *app {
	return func(t testing.TB, c *certificate) *app {
		t.Helper()
		return startApp(t, c.env(), program, args...)
	}
}

// tlsStacks are the TLS servers whose connections are counted.
var tlsStacks = []struct {
	name  string
	start func(testing.TB, *certificate) *app
	rsa   bool // true: an RSA key; false: ECDSA
	// Whether the server resumes sessions, by TLS version.
	resumes12, resumes13 bool
	http1                bool // whether its answer proves that it speaks only HTTP/1
}{
	{"Go", startTLSGo, true, true, true, true},
	{"OpenSSL: nginx", startTLSNginx, false, true, true, true},
	{"OpenSSL: HAProxy", startTLSHAProxy, true, true, true, true},
	{"OpenSSL: Node", startTLSProgram("node", "testdata/server.js"), false, true, true, true},
	{"OpenSSL: Python", startTLSProgram("python3", "testdata/server.py"), true, true, true, false},
	{"JSSE: Tomcat", startTLSJava("TomcatServer"), false, true, true, true},
	{"JSSE: JDK", startTLSJava("JdkServer"), true, true, true, true},
	{"JSSE: Netty", startTLSJava("NettyServer"), false, true, true, true},
}

// handshaker makes connections with one version of TLS.
type handshaker struct {
	*app
	version uint16
	resume  bool
	mss     int // the largest segment; 0: that of the network
	cache   tls.ClientSessionCache
}

// ethernet is the largest segment on an Ethernet.
const ethernet = 1448

// dial makes a connection without a handshake.
func (h *handshaker) dial(t *testing.T) (*tls.Conn, *flights) {
	t.Helper()
	dialer := net.Dialer{Timeout: wait.Patience, Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			if h.mss > 0 {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, h.mss)
			}
		})
		if err == nil {
			err = failed
		}
		return err
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", h.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * wait.Patience))
	f := &flights{Conn: conn}
	return tls.Client(f, &tls.Config{
		InsecureSkipVerify: true, ServerName: "localhost", MinVersion: h.version, MaxVersion: h.version, ClientSessionCache: h.cache,
		NextProtos: []string{"http/1.1"},
	}), f
}

// shake makes the handshake.
func (h *handshaker) shake(t *testing.T, conn *tls.Conn) *client {
	t.Helper()
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	state := conn.ConnectionState()
	if state.Version != h.version || state.DidResume != h.resume {
		t.Fatalf("got %s, resumed %v; want %s, %v", tls.VersionName(state.Version), state.DidResume, tls.VersionName(h.version), h.resume)
	}
	return &client{conn, bufio.NewReader(conn)}
}

// connect makes a connection with its handshake.
func (h *handshaker) connect(t *testing.T) *client {
	t.Helper()
	conn, _ := h.dial(t)
	return h.shake(t, conn)
}

// prepare makes the session to be resumed, or none.
func (h *handshaker) prepare(t *testing.T) {
	t.Helper()
	h.cache = nil
	if !h.resume {
		return
	}
	h.cache = tls.NewLRUClientSessionCache(1)
	first := *h
	first.resume = false
	c := first.connect(t)
	c.get(t, "/")
	c.answer(t, http.StatusOK) // now the tickets were read too
	c.Close()
	h.isLeft(t)
}

// isLeft waits until no connection is open.
func (h *handshaker) isLeft(t *testing.T) {
	t.Helper()
	becomes(t, h.counter(t, Config{Count: Open}), 0, readable)
	wait.Until(t, "the end of all connections", func() bool {
		n := 0
		err := new(diagnostics).dump(t.Context(), h.ports(), connected, func(*socket) error {
			n++
			return nil
		})
		return err == nil && n == 0
	})
}

// flights can hold back what a client writes, so that it is sent together with
// what follows.
type flights struct {
	net.Conn
	holds bool
	sent  int // writes
	held  []byte
}

func (f *flights) Write(b []byte) (int, error) {
	f.sent++
	if f.holds && f.sent > 1 { // not the ClientHello
		f.held = append(f.held, b...)
		return len(b), nil
	}
	return f.Conn.Write(b)
}

func (f *flights) send(t *testing.T) {
	t.Helper()
	f.holds = false
	if _, err := f.Conn.Write(f.held); err != nil {
		t.Fatal(err)
	}
}

// isAsked finds out what the port speaks as the counter does. This includes the
// question that the counter asks after clients have made handshakes.
func (a *app) isAsked(t *testing.T) protocol {
	t.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(a.port))
	note := func(end netip.AddrPort) { a.questions = append(a.questions, end) }
	p, err := ask(t.Context(), at, note)
	if err == nil && p.mayBeTLS {
		p, err = askTLS(t.Context(), at, note, p)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.speaks = map[int]protocol{a.port: p}
	return p
}

// later lets the time d pass for a counter.
func (c *Counter) later(d time.Duration) {
	c.lock()
	c.base = c.base.Add(-d)
	c.unlock()
}

// learnedEnough makes a counter consider the longest answer on a port as known.
func (c *Counter) learnedEnough(port int) {
	c.lock()
	defer c.unlock()
	l := c.views[port].learned
	l.seen(enoughAnswers, time.Second, c.views[port].now-enoughTime.Milliseconds())
	l.firstAt = c.views[port].now - enoughTime.Milliseconds()
}

// quietFor returns how long ago the app last received something, according to
// the kernel.
func (h *handshaker) quietFor(t *testing.T) time.Duration {
	t.Helper()
	age := time.Duration(0)
	if err := new(diagnostics).dump(t.Context(), h.ports(), connected, func(s *socket) error {
		age = time.Duration(s.recvAge) * time.Millisecond
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return age
}

// remembers returns what a counter knows about each connection, as text.
func (c *Counter) remembers() (text string) {
	c.lock()
	defer c.unlock()
	for _, m := range c.known {
		text += fmt.Sprintf("%+v learned %+v\n", *m, *c.views[m.port].learned)
	}
	return text
}

// endIsKnown reports whether the kernel shows the size of the segment that
// ended the handshake on the only connection. It does after a ClientHello of
// one segment that is large enough. inMore reports whether the handshake took
// more segments.
func (h *handshaker) endIsKnown(t *testing.T) (known, inMore bool) {
	t.Helper()
	if err := new(diagnostics).dump(t.Context(), h.ports(), connected, func(s *socket) error {
		known, inMore = s.dataIn == tlsOpening && s.largest >= largeHello, s.dataIn > tlsOpening
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return known, inMore
}

// counts checks several times that each counter counts one connection.
func counts(t *testing.T, when string, counters ...*Counter) {
	t.Helper()
	for range 5 {
		for i, c := range counters {
			if r, err := c.Count(t.Context()); err != nil || r.InFlight != 1 {
				t.Fatalf("%s: counter %d got %+v, %v, want 1 in flight", when, i, r, err)
			}
		}
	}
}

// getHeld is hold with a single write, and does not wait.
func (c *client) getHeld(t *testing.T, a *app) *gate {
	t.Helper()
	g := a.gate()
	c.get(t, "/hold?id="+g.id)
	return g
}

// tlsCases are sequences of events on a TLS connection.
var tlsCases = []struct {
	name string
	run  func(t *testing.T, h *handshaker)
}{
	{"the handshake, and no request", func(t *testing.T, h *handshaker) {
		auto := h.counter(t, Config{Count: Auto, Silence: Silence{Auto: true}})
		cautious, hasty, certain := h.cautious(t), h.counter(t, Config{Silence: Silence{Duration: soon}}), h.settled(t)
		all(t, 0, auto, cautious, hasty, certain)
		c := h.connect(t)
		late := h.counter(t, Config{Count: Auto, Silence: Silence{Auto: true}})
		counts(t, "after the handshake", auto, late, cautious, h.cautious(t))
		isKnown, inMore := h.endIsKnown(t)
		if inMore {
			return // a ClientHello of two segments, and the end: as many segments as with a request
		}
		all(t, 0, hasty, certain, h.settled(t)) // it is not certain that there is a request
		for _, c := range []*Counter{auto, late} {
			c.later(time.Second) // and longer than a slow machine takes for the rest
			counts(t, "more than 1 s after the handshake", c)
			c.later(leastSilence)
			if isKnown {
				becomes(t, c, 0, readable) // it has carried no request
				continue
			}
			c.later(time.Hour)
			counts(t, "an hour after a handshake whose end may have held a request", c)
			c.learnedEnough(h.port)
			becomes(t, c, 0, readable)
		}
		g := c.getHeld(t, h.app)
		g.reached(t)
		counts(t, "the first request, long after the handshake", auto, late, cautious, certain)
		g.release()
		c.answer(t, http.StatusOK)
	}},
	{"a slow request some time after the handshake", func(t *testing.T, h *handshaker) {
		watched := h.cautious(t)
		all(t, 0, watched)
		c := h.connect(t)
		counts(t, "after the handshake", watched, h.cautious(t))
		g := c.getHeld(t, h.app)
		counts(t, "on the way", watched, h.cautious(t))
		g.reached(t)
		counts(t, "in the app", watched, h.cautious(t))
		g.release()
		c.answer(t, http.StatusOK)
		counts(t, "answered, perhaps", watched, h.cautious(t))
	}},
	{"slow requests one after another, the first in the moment of the handshake's end", func(t *testing.T, h *handshaker) {
		// The tickets of TLS 1.3 are mostly sent when the request has already
		// arrived.
		watched, auto := h.cautious(t), h.counter(t, Config{Count: Auto, Silence: Silence{Auto: true}})
		all(t, 0, watched, auto)
		conn, _ := h.dial(t)
		g := h.gate()
		c := &client{conn, bufio.NewReader(conn)}
		c.get(t, "/hold?id="+g.id)
		g.reached(t)
		h.shake(t, conn)
		for i := range 3 {
			later := h.counter(t, Config{Count: Auto, Silence: Silence{Auto: true}})
			counts(t, fmt.Sprintf("request %d", i), watched, h.cautious(t), auto, later)
			if i == 0 {
				for _, c := range []*Counter{auto, later} {
					c.later(time.Hour)
					counts(t, "the first, for an hour", c)
				}
			}
			g.release()
			c.answer(t, http.StatusOK)
			if i < 2 {
				g = c.getHeld(t, h.app)
				g.reached(t)
			}
		}
	}},
	{"a slow request in the segment of the handshake's end", func(t *testing.T, h *handshaker) {
		if h.version == tls.VersionTLS12 && !h.resume {
			return // the client has to wait for the server's Finished
		}
		watched, auto := h.cautious(t), h.counter(t, Config{Count: Auto, Silence: Silence{Auto: true}})
		all(t, 0, watched, auto)
		conn, flights := h.dial(t)
		flights.holds = true
		c := h.shake(t, conn)
		g := c.getHeld(t, h.app)
		flights.send(t)
		g.reached(t)
		late := h.counter(t, Config{Count: Auto, Silence: Silence{Auto: true}})
		counts(t, "in the app", watched, h.cautious(t), auto, late)
		for _, c := range []*Counter{auto, late} {
			c.later(time.Hour)
			counts(t, "for an hour", c)
		}
		g.release()
		c.answer(t, http.StatusOK)
	}},
	{"idle after several requests", func(t *testing.T, h *handshaker) {
		proven, auto, hasty := h.cautious(t), h.counter(t, Config{Count: Auto, Silence: Silence{Auto: true}}), h.counter(t, Config{Silence: Silence{Duration: soon}})
		all(t, 0, proven, auto, hasty)
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(proven.remembers(), auto.remembers())
			}
		})
		c := h.connect(t)
		for range 10 {
			c.get(t, "/")
			c.answer(t, http.StatusOK)
			becomes(t, h.settled(t), 0, readable)
			proven.glimpse(t)
			auto.glimpse(t)
		}
		// If each request and its answer fall into one clock tick, their order
		// is not known until a request takes longer.
		slow := c.getHeld(t, h.app)
		slow.reached(t)
		counts(t, "the last", proven, auto)
		wait.Until(t, "the next clock tick", func() bool { return h.quietFor(t) > tick })
		counts(t, "the last, a tick later", proven, auto)
		slow.release()
		c.answer(t, http.StatusOK)
		all(t, 0, hasty, h.counter(t, Config{Silence: Silence{Duration: soon}}))
		if h.speaks[h.port].http1 {
			all(t, 0, proven, auto)
		} else {
			counts(t, "where another request may be under way", proven, auto)
		}
		g := c.getHeld(t, h.app)
		g.reached(t)
		counts(t, "and a slow one", proven, auto, h.cautious(t))
		g.release()
		c.answer(t, http.StatusOK)
	}},
}

func TestTLSStacks(t *testing.T) {
	for _, stack := range tlsStacks {
		t.Run(stack.name, func(t *testing.T) {
			t.Parallel()
			a := stack.start(t, newCertificate(t, stack.rsa))
			if p := a.isAsked(t); !p.tls || p.http1 != stack.http1 || p.http2 {
				t.Fatalf("it speaks %+v, want TLS, and to know HTTP/1 alone: %v", p, stack.http1)
			}
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				for _, resumed := range []bool{false, true} {
					for _, mss := range []int{0, ethernet} {
						resumes := map[uint16]bool{tls.VersionTLS12: stack.resumes12, tls.VersionTLS13: stack.resumes13}[version]
						name := tls.VersionName(version) + ", resumed " + strconv.FormatBool(resumed) + ", segments of " + strconv.Itoa(mss)
						t.Run(name, func(t *testing.T) {
							h := &handshaker{app: a, version: version, mss: mss}
							for _, test := range tlsCases {
								t.Run(test.name, func(t *testing.T) {
									h.isLeft(t)
									h.resume = resumed && resumes
									h.prepare(t)
									test.run(t, h)
								})
								h.isLeft(t)
							}
						})
					}
				}
			}
		})
	}
}
