package tcp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"lastcall/internal/procnet"
)

// errSourceChanged is a look's error when the kernel's diagnostics are refused
// that have answered before: its other table numbers sockets differently.
var errSourceChanged = errors.New("socket diagnostics have answered before, and are refused now")

// App reports who listens on the app's ports: it is a drain.App. A look at it
// costs the same however many connections there are.
type App struct {
	ports []int
	table procnet.Table

	mu      sync.Mutex // held while the kernel is asked, no longer than a look may take
	diag    diagnostics
	asked   bool // the diagnostics have answered
	byTable bool // they were refused: the table is read
}

// NewApp returns the app that listens on ports.
func NewApp(ports ...int) *App { return &App{ports: ports, table: procnet.Kernel()} }

// Ports returns the app's ports.
func (a *App) Ports() []int { return slices.Clone(a.ports) }

// Listeners returns the sockets that accept connections on each of the app's
// ports, by numbers that no other socket has had or will have while this
// process runs. A port that nobody listens on is absent. A number of zero is
// of a socket that the kernel does not number. It asks the kernel's socket
// diagnostics, and from the first time that they are refused reads
// /proc/net/tcp instead: the two number sockets differently.
func (a *App) Listeners(ctx context.Context) (map[int][]uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byTable {
		return a.listenersByTable()
	}
	listeners := make(map[int][]uint64, len(a.ports))
	err := a.diag.dump(ctx, a.ports, 1<<listen, func(s *socket) error {
		port := int(s.localPort())
		listeners[port] = append(listeners[port], s.cookie)
		return nil
	})
	switch {
	case err == nil:
		a.asked = true
		return listeners, nil
	case !refused(err):
		return nil, fmt.Errorf("looking who listens on the app's ports: %w", err)
	case a.asked:
		return nil, fmt.Errorf("looking who listens on the app's ports: %w: %w", errSourceChanged, err)
	}
	a.byTable = true
	return a.listenersByTable()
}

// listenersByTable is Listeners by /proc/net/tcp.
func (a *App) listenersByTable() (map[int][]uint64, error) {
	all, err := a.table.ListeningSockets()
	if err != nil {
		return nil, fmt.Errorf("looking who listens on the app's ports: %w", err)
	}
	listeners := make(map[int][]uint64, len(a.ports))
	for _, port := range a.ports {
		if sockets := all[port]; len(sockets) > 0 {
			listeners[port] = sockets
		}
	}
	return listeners, nil
}

// OtherPorts returns the ports that somebody else in the pod than the app, on
// its ports, and this process listens on, in their order.
func (a *App) OtherPorts(ctx context.Context) ([]int, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, err := a.table.ListeningSockets()
	if err != nil {
		return nil, fmt.Errorf("looking which ports the pod listens on: %w", err)
	}
	own := socketsOfThisProcess()
	var ports []int
	for port, sockets := range all {
		others := slices.ContainsFunc(sockets, func(socket uint64) bool { return !own[socket] })
		if others && !slices.Contains(a.ports, port) {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return ports, nil
}

// socketsOfThisProcess returns this process's sockets by their numbers in /proc. Where
// they cannot be told, there are none.
func socketsOfThisProcess() map[uint64]bool {
	own := make(map[uint64]bool)
	files, _ := os.ReadDir("/proc/self/fd") // what has been read is good
	for _, f := range files {
		name, err := os.Readlink("/proc/self/fd/" + f.Name())
		if err != nil {
			continue // closed meanwhile
		}
		number, isSocket := strings.CutPrefix(strings.TrimSuffix(name, "]"), "socket:[")
		if inode, err := strconv.ParseUint(number, 10, 64); isSocket && err == nil {
			own[inode] = true
		}
	}
	return own
}

// localPort returns the port of this side, which stands first in the socket's
// struct inet_diag_sockid.
func (s *socket) localPort() uint16 { return uint16(s.id.id[0])<<8 | uint16(s.id.id[1]) }
