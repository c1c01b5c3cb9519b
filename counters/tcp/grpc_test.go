package tcp

import (
	"bufio"
	"context"
	"io"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// startGRPC starts the server in testdata/grpc.
func startGRPC(t testing.TB) *app {
	t.Helper()
	return startApp(t, nil, "grpc-app", "serve")
}

// grpcRows repeats some of the rows with gRPC's own library at both ends of the
// connection. The library sends its own frames: both ends ping to measure the
// bandwidth.
var grpcRows = []row{
	again("HTTP/2, gRPC: a slow request", func(t *testing.T, a *app, _ func()) func() {
		c := a.speakGRPC(t)
		c.call(t, "hello")
		return c.slow(t, a)
	}),
	again("HTTP/2, gRPC: several requests, some answered", func(t *testing.T, a *app, look func()) func() {
		c := a.speakGRPC(t)
		end := c.slow(t, a)
		for range 3 {
			look()
			c.call(t, "hello")
		}
		return end
	}),
	again("HTTP/2, gRPC: idle, and the client's pings", func(t *testing.T, a *app, look func()) func() {
		c := a.speakGRPC(t)
		c.call(t, "hello")
		becomes(t, a.counter(t, Config{}), 0, readable) // the answer is acknowledged
		before := a.heard(t)
		wait.Until(t, "a ping, after 10 s", func() bool {
			look()
			return a.heard(t) > before
		})
		return func() { c.hangUp(t) }
	}),
	again("gRPC: a stream that is open, its messages answered", func(t *testing.T, a *app, look func()) func() {
		c := a.speakGRPC(t)
		for range 3 {
			look()
			c.say(t, "send a message")
			c.hears(t, "a message")
		}
		return func() {
			c.say(t, "close")
			c.hears(t, "closed")
			c.hangUp(t)
		}
	}),
}

// again returns a row for another server.
func again(name string, set func(*testing.T, *app, func()) func()) row {
	r := rows[slices.IndexFunc(rows, func(r row) bool { return r.name == name })]
	r.on, r.set = []string{"grpc"}, set
	return r
}

// clientOfGRPC is the client in testdata/grpc, with its one connection.
type clientOfGRPC struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	exited bool
}

func (a *app) speakGRPC(t *testing.T) *clientOfGRPC {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait.Patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, servers.Need(t, "grpc-app"), "call", a.address())
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, out := servers.Talk(t, cmd)
	c := &clientOfGRPC{cmd: cmd, in: in, out: out}
	t.Cleanup(func() {
		if !c.exited {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return c
}

// say sends a command.
func (c *clientOfGRPC) say(t *testing.T, command string) {
	t.Helper()
	if _, err := io.WriteString(c.in, command+"\n"); err != nil {
		t.Fatal(err)
	}
}

// hears waits until text comes back as the answer.
func (c *clientOfGRPC) hears(t *testing.T, text string) {
	t.Helper()
	if got, err := c.out.ReadString('\n'); err != nil || got != text+"\n" {
		t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

// call makes a call that is answered at once.
func (c *clientOfGRPC) call(t *testing.T, text string) {
	t.Helper()
	c.say(t, "call "+text)
	c.hears(t, text)
}

// slow begins a call. It returns a function that lets the call be answered and
// ends the client.
func (c *clientOfGRPC) slow(t *testing.T, a *app) (end func()) {
	t.Helper()
	g := a.gate()
	c.say(t, "call hold "+g.id)
	g.reached(t)
	return func() {
		g.release()
		c.hears(t, "hold "+g.id)
		c.hangUp(t)
	}
}

// hangUp ends the client.
func (c *clientOfGRPC) hangUp(t *testing.T) {
	t.Helper()
	c.in.Close()
	c.exited = true
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("the client: %v", err)
	}
}
