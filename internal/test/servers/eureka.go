package servers

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lastcall/internal/test/freeport"
)

// javaPatience is how long a Java program may take to start or to stop: 4 s on an
// idle machine, far more on a busy one.
const javaPatience = 2 * time.Minute

// Eureka is one or more running Eureka servers (Spring Cloud's) that are peers of
// each other. Use StartEureka to create one.
type Eureka struct {
	URLs  []string // their service URLs
	peers []*jvm
}

// EurekaOptions describe the Eureka servers to start.
type EurekaOptions struct {
	Peers int // 0 means 1
	// ResponseCache is how often they renew their cached answers; 0 means 300ms.
	ResponseCache time.Duration
	// Outdated is how long they keep an answer that was already outdated when it
	// was created, which happens sometimes; 0 means 5s. The product's default is
	// 3m.
	Outdated time.Duration
}

// NeedEureka ends a test if Eureka cannot be started.
func NeedEureka(t testing.TB) {
	t.Helper()
	Need(t, "java")
	Need(t, "eureka-server.d/sum")
	Need(t, "eureka-app.d/sum")
}

// StartEureka starts servers that several tests can share. They run until Stop, or
// until the test process ends, however it ends. Call NeedEureka first.
func StartEureka(o EurekaOptions) (*Eureka, error) {
	e := &Eureka{}
	cache, outdated := cmp.Or(o.ResponseCache, 300*time.Millisecond), cmp.Or(o.Outdated, 5*time.Second)
	hosts := make([]string, max(o.Peers, 1))
	ports := make([]int, len(hosts))
	for n := range hosts {
		// A server takes a peer with its own host name for itself, so each needs
		// its own address.
		hosts[n] = fmt.Sprintf("127.0.0.%d", n+1)
		var err error
		if ports[n], err = freeport.On(hosts[n]); err != nil {
			return nil, err
		}
		e.URLs = append(e.URLs, fmt.Sprintf("http://%s:%d/eureka", hosts[n], ports[n]))
	}
	for n := range hosts {
		others := e.others(n)
		e.peers = append(e.peers, &jvm{
			ready: e.URLs[n] + "/apps",
			args: spring("eureka-server",
				"--server.address="+hosts[n],
				"--server.port="+strconv.Itoa(ports[n]),
				"--eureka.instance.hostname="+hosts[n],
				"--eureka.client.register-with-eureka=false",
				"--eureka.client.fetch-registry="+strconv.FormatBool(len(others) > 0),
				"--eureka.client.registry-fetch-interval-seconds=1",
				"--eureka.client.service-url.defaultZone="+strings.Join(append(others, e.URLs[n]), "/,")+"/",
				"--eureka.server.registry-sync-retries=2",
				"--eureka.server.registry-sync-retry-wait-ms=200",
				"--eureka.server.response-cache-update-interval-ms="+strconv.FormatInt(cache.Milliseconds(), 10),
				"--eureka.server.response-cache-auto-expiration-in-seconds="+strconv.Itoa(int(outdated.Seconds())),
				"--eureka.server.enable-self-preservation=false",
			),
		})
	}
	err := forEach(e.peers, (*jvm).start)
	if err != nil {
		e.Stop()
		return nil, fmt.Errorf("starting Eureka: %w", err)
	}
	return e, nil
}

// others returns the URLs of the peers of server n.
func (e *Eureka) others(n int) []string {
	others := append([]string(nil), e.URLs[:n]...)
	return append(others, e.URLs[n+1:]...)
}

// Stop kills all servers.
func (e *Eureka) Stop() {
	for n := range e.peers {
		e.Kill(n)
	}
}

// Kill ends server n at once. Then nothing listens at its URL.
func (e *Eureka) Kill(n int) { e.peers[n].kill() }

// Restart restarts server n, which was killed, at the same URL. It copies the
// instances that are UP from its peers. It learns the others, and overrides, from
// the next heartbeat that its peers get.
func (e *Eureka) Restart(t testing.TB, n int) {
	t.Helper()
	if err := e.peers[n].start(); err != nil {
		t.Fatalf("starting Eureka again: %v", err)
	}
}

// Freeze makes server n accept connections without answering, until Thaw.
func (e *Eureka) Freeze(t testing.TB, n int) {
	t.Helper()
	e.peers[n].signal(t, syscall.SIGSTOP)
}

// Thaw ends Freeze.
func (e *Eureka) Thaw(t testing.TB, n int) {
	t.Helper()
	e.peers[n].signal(t, syscall.SIGCONT)
}

// EurekaApp is a running Spring Boot program with the real Eureka client,
// registered under Name/ID at IP:Port.
type EurekaApp struct {
	Name, ID string
	IP       string
	Port     int
	*jvm
}

// StartEurekaApp starts the program at ip, an address of this machine, with a
// heartbeat every second, and waits until it answers. The program is killed at the
// end of the test.
func StartEurekaApp(t testing.TB, servers *Eureka, name, id, ip string) *EurekaApp {
	t.Helper()
	port, err := freeport.On(ip)
	if err != nil {
		t.Fatal(err)
	}
	app := &EurekaApp{Name: name, ID: id, IP: ip, Port: port, jvm: &jvm{
		ready: fmt.Sprintf("http://%s:%d/work?ms=0", ip, port),
		args: spring("eureka-app",
			"--spring.application.name="+name,
			"--server.address="+ip,
			"--server.port="+strconv.Itoa(port),
			"--eureka.instance.instance-id="+id,
			"--eureka.instance.ip-address="+ip,
			"--eureka.instance.prefer-ip-address=true",
			"--eureka.instance.lease-renewal-interval-in-seconds=1",
			"--eureka.instance.lease-expiration-duration-in-seconds=30",
			"--eureka.client.service-url.defaultZone="+strings.Join(servers.URLs, "/,")+"/",
			"--eureka.client.registry-fetch-interval-seconds=1",
			"--eureka.client.initial-instance-info-replication-interval-seconds=1",
			"--eureka.client.instance-info-replication-interval-seconds=1",
		),
	}}
	t.Cleanup(func() {
		app.kill()
		if t.Failed() {
			t.Logf("the log of %s ends with:\n%s", name, app.log.String())
		}
	})
	if err := app.start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	return app
}

// Terminate sends the app SIGTERM.
func (a *EurekaApp) Terminate(t testing.TB) {
	t.Helper()
	a.signal(t, syscall.SIGTERM)
}

// Kill ends the app at once, without a message to its registry.
func (a *EurekaApp) Kill() { a.kill() }

// Start restarts the app, after it has ended, at the same address and under the
// same id, and waits until it answers.
func (a *EurekaApp) Start(t testing.TB) {
	t.Helper()
	if err := a.start(); err != nil {
		t.Fatalf("starting %s again: %v", a.Name, err)
	}
}

// Log returns the end of the app's log.
func (a *EurekaApp) Log() string { return a.log.String() }

// Exited returns a channel that is closed when the app has ended.
func (a *EurekaApp) Exited() <-chan struct{} { return a.exited }

// jvm is one Java program. It dies with the test process.
type jvm struct {
	args   []string
	ready  string // a URL that answers 200 when the program is up
	log    logEnd
	cmd    *exec.Cmd
	exited chan struct{}
}

// start starts the program and waits until it is up.
func (j *jvm) start() error {
	cmd := exec.Command("java", j.args...)
	cmd.Stdout, cmd.Stderr = &j.log, &j.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // ends it even if the test panics
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	j.cmd, j.exited = cmd, exited
	go func() {
		_ = cmd.Wait() // it is usually killed
		close(exited)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), javaPatience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !answers(ctx, j.ready) {
		select {
		case <-tick.C:
		case <-exited:
			return fmt.Errorf("it ended at once; its log ends with:\n%s", j.log.String())
		case <-ctx.Done():
			j.kill()
			return fmt.Errorf("no answer from %s in %v; its log ends with:\n%s", j.ready, javaPatience, j.log.String())
		}
	}
	return nil
}

func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}

func (j *jvm) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := j.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %v: %v", s, err)
	}
}

// kill ends the program and waits for its end. It does nothing if the program has
// already ended.
func (j *jvm) kill() {
	if j.cmd == nil || j.cmd.Process == nil {
		return
	}
	_ = j.cmd.Process.Kill() // it may have ended already
	<-j.exited
}

// logEnd keeps the end of what is written to it.
type logEnd struct {
	mu   sync.Mutex
	kept []byte
}

func (l *logEnd) Write(b []byte) (int, error) {
	const most = 32 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, b...)
	if over := len(l.kept) - most; over > 0 {
		l.kept = bytes.Clone(l.kept[over:])
	}
	return len(b), nil
}

func (l *logEnd) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.kept)
}

func forEach[T any](list []T, f func(T) error) error {
	errs := make([]error, len(list))
	var running sync.WaitGroup
	for n, one := range list {
		running.Go(func() { errs[n] = f(one) })
	}
	running.Wait()
	return errors.Join(errs...)
}
