package counting

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
)

// The environment of a world's process.
const (
	worldVariable   = "BENCH_COUNTING_WORLD"   // file with the task
	programVariable = "BENCH_COUNTING_PROGRAM" // the sidecar's program
)

// resultsFile is the file descriptor for a world's results, one line of JSON each.
const resultsFile = 3

// task is the work of a world.
type task struct {
	Runs       []Run `json:"runs"`
	AtOnce     int   `json:"at_once"`
	Everything bool  `json:"everything"` // write all data of each run, not only of runs with a wrong verdict
}

// world is a process in its own network namespace, with servers, sidecars and the
// near clients. Far clients are in another namespace, behind a link.
type world struct {
	program     *sidecar.Program
	far         *namespace // nil if no run needs it
	observer    *observer
	certificate string // path of the file
	key         string
	pair        tls.Certificate
	roots       *x509.CertPool
	everything  bool

	slots chan slot // ports that no run uses

	mu      sync.Mutex
	results *json.Encoder
}

// slot is a set of ports: of the server without TLS, of the server with TLS, and of
// a gateway.
type slot struct{ plain, secured, gateway int }

// IsWorld reports whether this process was started to make runs. If so, it must
// only call World.
func IsWorld() bool { return os.Getenv(worldVariable) != "" }

// World makes the runs that this process was started for. It does not return.
func World() {
	text, err := os.ReadFile(os.Getenv(worldVariable)) //nolint:gosec // set by Play
	var do task
	if err == nil {
		err = json.Unmarshal(text, &do)
	}
	if err == nil {
		err = flag.Set("test.parallel", strconv.Itoa(do.AtOnce))
	}
	if err == nil {
		err = flag.Set("test.timeout", "3h")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "making runs:", err)
		os.Exit(1)
	}
	everything := func(string, string) (bool, error) { return true, nil }
	testing.Main(everything, []testing.InternalTest{{Name: "World", F: func(t *testing.T) {
		makeWorld(t, &do).runAll(t, do.Runs)
	}}}, nil, nil)
}

// makeWorld starts what the runs need.
func makeWorld(t testing.TB, do *task) *world {
	t.Helper()
	w := &world{
		program:    &sidecar.Program{Path: os.Getenv(programVariable)},
		results:    json.NewEncoder(os.NewFile(resultsFile, "results")),
		slots:      make(chan slot, do.AtOnce),
		everything: do.Everything,
	}
	if err := loopbackUp(); err != nil {
		t.Fatal(err)
	}
	w.makeCertificate(t)
	kinds := make(map[string]bool)
	for _, r := range do.Runs {
		kinds[r.Server] = true
		if r.Far && w.far == nil {
			var err error
			if w.far, err = connectClients(); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.observer = startObserver(t)
	delete(kinds, patternServer) // each run has its own
	if len(kinds) > 1 {
		t.Fatalf("a world has one kind of server, not %v", kinds)
	}
	// The process has the namespace and all its ports for itself. Clients do not
	// get these ports.
	const plain, secured, gateway, backend = 10_000, 11_000, 12_000, 13_000
	o := servers.DelayOptions{Certificate: w.certificate, Key: w.key}
	for n := range do.AtOnce {
		o.Ports, o.TLSPorts = append(o.Ports, plain+n), append(o.TLSPorts, secured+n)
		w.slots <- slot{plain + n, secured + n, gateway + n}
	}
	for server := range kinds {
		if server == goServer {
			for n := range do.AtOnce {
				l, _ := listen(t, plain+n, nil)
				serveHTTP(t, l, false)
				l, _ = listen(t, secured+n, serverTLS(w.pair, false))
				serveHTTP(t, l, false)
			}
			continue
		}
		l, _ := listen(t, backend, nil)
		serveHTTP(t, l, false)
		o.Backend = fmt.Sprintf("127.0.0.1:%d", backend)
		var kind string
		kind, o.HTTP2 = strings.CutSuffix(server, "-h2")
		servers.StartDelays(t, kind, o)
	}
	return w
}

// runAll makes all runs, as many at a time as there are slots.
func (w *world) runAll(t *testing.T, runs []Run) {
	t.Run("runs", func(t *testing.T) {
		for n, r := range runs {
			t.Run(r.String(), func(t *testing.T) {
				t.Parallel()
				if n < cap(w.slots) {
					// Do not start all at the same moment.
					_ = sleep(t.Context(), time.Duration(n)*apart) // an error means that the test is over
				}
				w.run(t, &r)
			})
		}
	})
}

// apart is the time between the starts of the first runs.
const apart = 500 * time.Millisecond

// run makes one run, and writes its result in any case.
func (w *world) run(t *testing.T, r *Run) {
	s := <-w.slots
	result := &Result{Run: *r, Broken: "it ended before its time: see the log"}
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if err := w.results.Encode(result); err != nil {
			t.Errorf("writing the result: %v", err)
		}
	}()
	t.Cleanup(func() { w.slots <- s })
	w.play(t, r, s, result)
}

// makeCertificate writes a TLS certificate and its key.
func (w *world) makeCertificate(t testing.TB) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"}, DNSNames: []string{"app"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(podAddress)},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "counting") //nolint:usetesting // workers of other users read it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // it is a temporary folder
	certificatePEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	w.certificate, w.key = filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem")
	if err := errors.Join(os.WriteFile(w.certificate, certificatePEM, 0o600), os.WriteFile(w.key, keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	if w.pair, err = tls.X509KeyPair(certificatePEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	w.roots = x509.NewCertPool()
	w.roots.AppendCertsFromPEM(certificatePEM)
}

// clientTLS returns the TLS configuration of a run's client, or nil without TLS.
func (w *world) clientTLS(r *Run) *tls.Config {
	if !r.TLS {
		return nil
	}
	c := &tls.Config{RootCAs: w.roots, ServerName: "app", MinVersion: tls.VersionTLS12}
	if r.Client == freshTLS12 || r.Client == resumedTLS12 {
		c.MaxVersion = tls.VersionTLS12
	}
	if r.Client == resumed || r.Client == resumedTLS12 {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	}
	return c
}

// target returns the app that a run's client calls.
func (w *world) target(r *Run, port int) *target {
	at := &target{from: loopbackClients, tls: w.clientTLS(r), path: "/ws"}
	host := "127.0.0.1"
	if r.Far {
		at.clients, at.from, host = w.far, clientAddress, podAddress
	}
	at.address = net.JoinHostPort(host, strconv.Itoa(port))
	return at
}

// gateway starts a gateway in the clients' namespace, in front of the app, and
// returns the target for its clients.
func (w *world) gateway(t testing.TB, r *Run, app *target, port int) *target {
	t.Helper()
	kind := "nginx"
	if r.Client == byHAProxy {
		kind = "haproxy"
	}
	at := &target{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), from: "127.0.0.1", clients: app.clients}
	o := servers.GatewayOptions{
		Port: port, From: app.from, Upstream: app.address, TLS: r.TLS,
		Listens: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			conn, err := at.dialTCP(ctx, at.address)
			if err == nil {
				err = conn.Close()
			}
			return err
		},
	}
	if app.clients != nil {
		o.Before = app.clients.command()
	}
	servers.StartGateway(t, kind, o)
	return at
}
