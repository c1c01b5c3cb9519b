package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"lastcall/drain"
)

// hook is the kubelet's request, as Kubernetes 1.34 sends it.
const hook = "GET /prestop?from=kubelet HTTP/1.1\r\n" +
	"Host: 10.244.0.17:8099\r\n" +
	"User-Agent: kube-lifecycle/1.34\r\n" +
	"Accept: */*\r\n" +
	"Accept-Encoding: gzip\r\n" +
	"X-Of-The-Hook: httpHeaders\r\n" +
	"\r\n"

// answerOf parses the one answer that a connection has received, and checks
// that nothing follows it.
func answerOf(t *testing.T, received string) (*http.Response, string) {
	t.Helper()
	in := bufio.NewReader(strings.NewReader(received))
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("%v, in %q", err, received)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%v, in %q", err, received)
	}
	if more, _ := in.Peek(1); len(more) > 0 {
		t.Fatalf("more than one answer in %q", received)
	}
	return resp, string(body)
}

func TestHookOnTheWire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t, func(c *drain.Config, _ *Options) { c.GracePeriod = time.Hour })
		network := e.serve(Options{})
		e.counter.set(1, nil)
		w := network.dial()
		w.say(hook)
		for range 29 {
			after(time.Minute)
			if got := w.received(); got != "" || w.closed() {
				t.Fatalf("before the drain's end the caller was sent %q", got)
			}
		}
		e.counter.set(0, nil)
		after(time.Minute)
		if !w.closed() {
			t.Error("the connection stays open after the answer")
		}
		resp, body := answerOf(t, w.received())
		if resp.StatusCode != http.StatusOK || !resp.Close || resp.Header.Get("Content-Encoding") != "" {
			t.Errorf("the answer is %+v", resp)
		}
		if resp.ContentLength != int64(len(body)) || !strings.Contains(body, `"outcome": "drained"`) {
			t.Errorf("Content-Length %d, body %s", resp.ContentLength, body)
		}
	})
}

func TestConnectionCarriesOneRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := newEdge(t).serve(Options{})
		for _, path := range []string{"/readyz", "/livez", "/status", "/metrics", "/nothing"} {
			w := network.dial()
			w.say("GET " + path + " HTTP/1.1\r\nHost: pod\r\nConnection: keep-alive\r\n\r\n")
			if resp, _ := answerOf(t, w.received()); !resp.Close || !w.closed() {
				t.Errorf("%s: says that the connection closes: %v, it is closed: %v", path, resp.Close, w.closed())
			}
		}
	})
}

func TestSilentConnectionIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		silent := newEdge(t).serve(Options{}).dial()
		after(headerLimit - time.Second)
		if silent.closed() {
			t.Fatal("it was closed too soon")
		}
		after(2 * time.Second)
		if !silent.closed() {
			t.Errorf("a connection that never asked for anything is open after %v", headerLimit+time.Second)
		}
	})
}

func TestSlowHeaderIsCutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		w := e.serve(Options{}).dial()
		began := time.Now()
		for i := 0; !w.closed(); i++ {
			if time.Since(began) > time.Minute {
				t.Fatal("a caller may take more than a minute to send its header")
			}
			w.say(hook[i%(len(hook)-4) : i%(len(hook)-4)+1])
			after(time.Second)
		}
		if s := e.status(); s.Phase != drain.Serving {
			t.Errorf("half a request has begun a drain: %s", s.Phase)
		}
	})
}

func TestHeaderIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		network := e.serve(Options{})
		fits := network.dial()
		fits.say("GET /livez HTTP/1.1\r\nHost: pod\r\nX-Long: " + strings.Repeat("x", headerBytes/2) + "\r\n\r\n")
		if resp, _ := answerOf(t, fits.received()); resp.StatusCode != http.StatusOK {
			t.Errorf("a header of 8 KiB: answers %d", resp.StatusCode)
		}
		long := network.dial()
		long.say("GET /prestop HTTP/1.1\r\nHost: pod\r\nX-Long: " + strings.Repeat("x", 3*headerBytes) + "\r\n\r\n")
		after(time.Second)
		if !long.closed() {
			t.Error("the connection stays open")
		}
		if resp, _ := answerOf(t, long.received()); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("answers %d, want 431", resp.StatusCode)
		}
		if s := e.status(); s.Phase != drain.Serving {
			t.Errorf("a request that was refused has begun a drain: %s", s.Phase)
		}
	})
}

func TestBodyIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		network := e.serve(Options{})
		announced := network.dial()
		announced.say(fmt.Sprintf("POST /drain HTTP/1.1\r\nHost: pod\r\nContent-Length: %d\r\n\r\n", bodyBytes+1))
		after(time.Second)
		resp, body := answerOf(t, announced.received())
		if resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close || !strings.Contains(body, `"error"`) {
			t.Errorf("answers %d %s", resp.StatusCode, body)
		}
		if s := e.status(); s.Phase != drain.Serving {
			t.Errorf("a request that was refused has begun a drain: %s", s.Phase)
		}
		if after(2 * bodyLimit); !announced.closed() {
			t.Error("a body that is not wanted and does not come is waited for without an end")
		}

		endless := network.dial()
		go func() {
			_, err := io.WriteString(endless, "POST /drain HTTP/1.1\r\nHost: pod\r\nTransfer-Encoding: chunked\r\n\r\n")
			for err == nil {
				_, err = io.WriteString(endless, "1000\r\n"+strings.Repeat("x", 0x1000)+"\r\n")
			}
		}()
		after(time.Minute)
		if !endless.closed() {
			t.Error("a body without an end is read for more than a minute")
		}
	})
}

// A hook with a body blocks like any other hook, and its caller may leave as
// well.
func TestHookWithABody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		e.counter.set(1, nil)
		network := e.serve(Options{})
		w := network.dial()
		w.say(strings.Replace(hook, "Host:", "Content-Length: 2\r\nHost:", 1) + "{}")
		after(10 * time.Second)
		if got := w.received(); got != "" || w.closed() {
			t.Fatalf("before the drain's end the caller was sent %q", got)
		}
		e.counter.set(0, nil)
		after(2 * time.Second)
		if resp, _ := answerOf(t, w.received()); resp.StatusCode != http.StatusOK {
			t.Errorf("answers %d", resp.StatusCode)
		}
	})
}

func TestPanicIsNotTheProcess(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		e.handler = Handler(nil, Options{}) // every call that needs a drainer panics
		for _, call := range []struct{ method, path string }{
			{http.MethodGet, "/prestop"}, {http.MethodGet, "/poststart"}, {http.MethodGet, "/readyz"},
			{http.MethodGet, "/status"}, {http.MethodGet, "/metrics"}, {http.MethodPost, "/drain"}, {http.MethodDelete, "/drain"},
		} {
			wantsError(t, e.call(call.method, call.path), http.StatusInternalServerError, "see the log")
		}
		wants(t, e.call(http.MethodGet, "/livez"), http.StatusOK)
	})
}

func TestCallerHangsUpOnTheWire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		e.counter.set(1, nil)
		network := e.serve(Options{})
		leaves, stays := network.dial(), network.dial()
		leaves.say(hook)
		after(time.Second)
		_ = leaves.Close()
		stays.say(hook)
		after(10 * time.Second)
		if got := stays.received(); got != "" {
			t.Fatalf("when another caller left, this one was sent %q", got)
		}
		e.counter.set(0, nil)
		after(2 * time.Second)
		resp, body := answerOf(t, stays.received())
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"seconds": 12`) {
			t.Errorf("answers %d %s", resp.StatusCode, body)
		}
	})
}

// What the tests above check on connections in the bubble is also true of real
// ones.
func TestRealSockets(t *testing.T) {
	e := newEdge(t, func(c *drain.Config, _ *Options) {
		c.EndpointsWait, c.Quiet, c.Registries, c.Poll = 0, 0, nil, 10*time.Millisecond
	})
	e.counter.set(1, nil)
	listener, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := New(e.d, Options{})
	ended := make(chan error)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	dial := func() *net.TCPConn {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn.(*net.TCPConn)
	}

	const callers = 200
	answers := make([]string, callers)
	var all sync.WaitGroup
	for i := range callers {
		conn := dial()
		all.Go(func() {
			_, _ = io.WriteString(conn, hook) // a failure shows in the answer
			got, err := io.ReadAll(conn)
			if err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
			answers[i] = string(got)
		})
	}
	// A caller that closes its half of the connection is answered at once, but
	// not that the pod has drained.
	half := dial()
	if _, err := io.WriteString(half, hook); err != nil {
		t.Fatal(err)
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(half)
	if err != nil {
		t.Fatal(err)
	}
	if resp, body := answerOf(t, string(got)); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("answers %d %s", resp.StatusCode, body)
	}
	// A call that is answered while the others wait shows that none of them is
	// answered too early, as far as the order of events can show it.
	probe := dial()
	if _, err := io.WriteString(probe, "GET /readyz HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err = io.ReadAll(probe); err != nil {
		t.Fatal(err)
	}
	if resp, _ := answerOf(t, string(got)); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("/readyz answers %d during the drain", resp.StatusCode)
	}

	e.counter.set(0, nil)
	all.Wait()
	_, first := answerOf(t, answers[0])
	for i, a := range answers {
		resp, body := answerOf(t, a)
		if resp.StatusCode != http.StatusOK || !resp.Close || body != first {
			t.Fatalf("caller %d: %d %s, and the first one %s", i, resp.StatusCode, body, first)
		}
	}
}

func TestListenSaysWhenThePortIsTaken(t *testing.T) {
	first, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if second, err := Listen(first.Addr().String()); err == nil {
		second.Close()
		t.Fatal("two servers listen on one port")
	}
}
