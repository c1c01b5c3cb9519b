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

// errSourceChanged is the error of a check when the kernel's diagnostics have
// answered before and are refused now. The other source, /proc/net/tcp, numbers
// sockets differently.
var errSourceChanged = errors.New("socket diagnostics have answered before, and are refused now")

// App reports who listens on the app's ports: it is a drain.App. A check costs
// the same for any number of connections.
type App struct {
	ports []int
	table procnet.Table

	mu      sync.Mutex // held while the kernel is asked, but no longer than a check may take
	diag    diagnostics
	asked   bool // the diagnostics have answered at least once
	byTable bool // they were refused, and /proc/net/tcp is read instead
}

// NewApp returns an App for the app that listens on ports.
func NewApp(ports ...int) *App { return &App{ports: ports, table: procnet.Kernel()} }

// Ports returns the app's ports.
func (a *App) Ports() []int { return slices.Clone(a.ports) }

// Listeners returns the sockets that accept connections on each of the app's
// ports. A socket is identified by a number that no other socket has had or
// will have while this process runs. The number is zero if the kernel does not
// number the socket. A port on which nobody listens is absent. Listeners asks
// the kernel's socket diagnostics. If they are refused the first time, it reads
// /proc/net/tcp from then on; if they are refused after they have answered, it
// returns an error, because the two number sockets differently.
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
		return nil, fmt.Errorf("checking who listens on the app's ports: %w", err)
	case a.asked:
		return nil, fmt.Errorf("checking who listens on the app's ports: %w: %w", errSourceChanged, err)
	}
	a.byTable = true
	return a.listenersByTable()
}

// listenersByTable is Listeners with /proc/net/tcp as the source.
func (a *App) listenersByTable() (map[int][]uint64, error) {
	all, err := a.table.ListeningSockets()
	if err != nil {
		return nil, fmt.Errorf("checking who listens on the app's ports: %w", err)
	}
	listeners := make(map[int][]uint64, len(a.ports))
	for _, port := range a.ports {
		if sockets := all[port]; len(sockets) > 0 {
			listeners[port] = sockets
		}
	}
	return listeners, nil
}

// OtherPorts returns the other ports on which the pod listens, sorted: neither
// the app's ports, nor those on which only this process listens.
func (a *App) OtherPorts(ctx context.Context) ([]int, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, err := a.table.ListeningSockets()
	if err != nil {
		return nil, fmt.Errorf("checking which ports the pod listens on: %w", err)
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

// socketsOfThisProcess returns the numbers in /proc of this process's sockets.
// It returns none if they cannot be read.
func socketsOfThisProcess() map[uint64]bool {
	own := make(map[uint64]bool)
	files, _ := os.ReadDir("/proc/self/fd") // on an error, use what was read
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

// localPort returns the local port, which comes first in the socket's struct
// inet_diag_sockid.
func (s *socket) localPort() uint16 { return uint16(s.id.id[0])<<8 | uint16(s.id.id[1]) }
