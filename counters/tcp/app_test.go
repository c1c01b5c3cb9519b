package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lastcall/internal/procnet"
)

// Listening reports whether anybody listens on one of the ports.
func (a *App) Listening(ctx context.Context) (bool, error) {
	listeners, err := a.Listeners(ctx)
	return len(listeners) > 0, err
}

// bothWays runs a test with an App that asks the kernel's diagnostics, and with
// one whose diagnostics are refused.
func bothWays(t *testing.T, test func(t *testing.T, newApp func(ports ...int) *App)) {
	for _, byTable := range []bool{false, true} {
		t.Run(fmt.Sprintf("by table %v", byTable), func(t *testing.T) {
			test(t, func(ports ...int) *App {
				a := NewApp(ports...)
				a.byTable = byTable
				return a
			})
		})
	}
}

func (a *App) look(t *testing.T) map[int][]uint64 {
	t.Helper()
	listeners, err := a.Listeners(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return listeners
}

func TestListenersOfSeveralPorts(t *testing.T) {
	bothWays(t, func(t *testing.T, newApp func(...int) *App) {
		first, second := listenOn(t, "127.0.0.1:0"), listenOn(t, "[::1]:0")
		a := newApp(first.port, second.port, 1)
		if got := a.Ports(); !slices.Equal(got, []int{first.port, second.port, 1}) {
			t.Errorf("the ports are %v", got)
		}
		both := a.look(t)
		if len(both) != 2 || len(both[first.port]) != 1 || len(both[second.port]) != 1 || both[first.port][0] == 0 || both[first.port][0] == both[second.port][0] {
			t.Errorf("got %v, want one listener on each of two ports", both)
		}
		first.Close()
		if got := a.look(t); len(got) != 1 || !slices.Equal(got[second.port], both[second.port]) {
			t.Errorf("got %v, want the one that is left of %v", got, both)
		}
		second.Close()
		if got := a.look(t); len(got) != 0 {
			t.Errorf("got %v, want none", got)
		}
	})
}

// A listener that replaces another has another number, whether or not there is
// a gap between the two. A listener that stays keeps its number.
func TestListenersAreToldApart(t *testing.T) {
	bothWays(t, func(t *testing.T, newApp func(...int) *App) {
		reuse := func(port int) net.Listener {
			t.Helper()
			config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				var err error
				controlled := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
				return errors.Join(controlled, err)
			}}
			l, err := config.Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			return l
		}
		old := reuse(0)
		port := old.Addr().(*net.TCPAddr).Port
		a := newApp(port)
		before := a.look(t)[port]
		if again := a.look(t)[port]; !slices.Equal(before, again) {
			t.Errorf("one listener is %v, then %v", before, again)
		}
		handed := reuse(port) // as in a reload: both listen for a moment
		if both := a.look(t)[port]; len(both) != 2 || !slices.Contains(both, before[0]) {
			t.Errorf("got %v, want %v and another", both, before)
		}
		old.Close()
		after := a.look(t)[port]
		if len(after) != 1 || after[0] == before[0] {
			t.Errorf("after a hand-over got %v, want another than %v", after, before)
		}
		handed.Close()
		reuse(port)
		if now := a.look(t)[port]; len(now) != 1 || now[0] == after[0] {
			t.Errorf("after a new start got %v, want another than %v", now, after)
		}
	})
}

func TestOtherPorts(t *testing.T) {
	own, app := listenOn(t, "127.0.0.1:0"), startGo(t)
	if got, err := NewApp(1).OtherPorts(t.Context()); err != nil || !slices.Contains(got, app.port) || slices.Contains(got, own.port) || !slices.IsSorted(got) {
		t.Errorf("got %v, %v, want %d of another process, and not this process's %d", got, err, app.port, own.port)
	}
	if got, err := NewApp(app.port).OtherPorts(t.Context()); err != nil || slices.Contains(got, app.port) {
		t.Errorf("got %v, %v, which must not hold the app's own %d", got, err, app.port)
	}
}

func TestAnAppThatCannotBeLookedAt(t *testing.T) {
	a := NewApp(1)
	a.byTable, a.table = true, procnet.Table{t.TempDir()}
	if _, err := a.Listeners(t.Context()); err == nil {
		t.Error("a table that cannot be read gave no error")
	}
	if _, err := a.OtherPorts(t.Context()); err == nil {
		t.Error("a table that cannot be read gave no other ports and no error")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewApp(1).Listeners(ended); err == nil {
		t.Error("a look that was called off gave no error")
	}
}
