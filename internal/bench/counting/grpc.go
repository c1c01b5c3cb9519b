package counting

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lastcall/internal/test/servers"
)

// caller is a client that uses gRPC's own library, in its own process.
type caller struct {
	w     *work
	input io.WriteCloser
	gone  chan struct{}

	mu      sync.Mutex
	last    int
	waiting map[string]chan string
}

// startCaller starts a caller, which is stopped at the end of the test. It pings
// every ping seconds, or never if ping is 0. It opens the given number of
// connections and makes one call on each; after that, it uses only the first.
func startCaller(t testing.TB, at *target, w *work, certificate string, ping, connections int) *caller {
	t.Helper()
	var args []string
	if at.clients != nil {
		args = at.clients.command()
	}
	args = append(args, servers.Need(t, "grpc-delay"), "call", at.from, at.address, strconv.Itoa(ping), strconv.Itoa(connections))
	if at.tls != nil {
		args = append(args, certificate)
	}
	cmd := exec.CommandContext(context.Background(), args[0], args[1:]...) //nolint:gosec // the arguments are from above
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting the gRPC client: %v", err)
	}
	c := &caller{w: w, input: input, gone: make(chan struct{}), waiting: make(map[string]chan string)}
	go func() {
		defer close(c.gone)
		for lines := bufio.NewScanner(output); lines.Scan(); {
			number, answer, _ := strings.Cut(lines.Text(), " ")
			c.mu.Lock()
			if waiting, ok := c.waiting[number]; ok {
				waiting <- answer // only this goroutine sends, and the channel is buffered
				delete(c.waiting, number)
			}
			c.mu.Unlock()
		}
		_ = cmd.Wait() // it ends with its input, or its error is on standard error
	}()
	t.Cleanup(func() {
		_ = input.Close() // this ends it
		<-c.gone
	})
	return c
}

// get makes a call that takes as long as d says.
func (c *caller) get(ctx context.Context, d time.Duration) error {
	return c.call(ctx, fmt.Sprintf("delay %d", d.Milliseconds()), d+patience)
}

var errGone = errors.New("the gRPC client has ended")

func (c *caller) call(ctx context.Context, command string, limit time.Duration) (err error) {
	answer := make(chan string, 1)
	c.mu.Lock()
	c.last++
	number := strconv.Itoa(c.last)
	c.waiting[number] = answer
	end := c.w.begin(command)
	_, err = fmt.Fprintln(c.input, number, command)
	c.mu.Unlock()
	defer func() { end(err) }()
	if err != nil {
		return err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case text := <-answer:
		if text != "done" {
			return fmt.Errorf("%w: %s", errNotDone, text)
		}
		return nil
	case <-c.gone:
		return errGone
	case <-timer.C:
		return os.ErrDeadlineExceeded
	case <-ctx.Done():
		return ctx.Err()
	}
}
