package tcp

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"lastcall/internal/procnet"
)

// App tells whether the app listens: it is a drain.App. A look at it costs the
// same however many connections there are.
//
// Of several ports one is enough. An app that ends may close them one after
// another, and is not gone before the last; one that was restarted is back with
// the first. So they should be the ports of one container: of two containers,
// each would hide that the other was restarted.
type App struct {
	ports []int
	table procnet.Table

	mu   sync.Mutex // held while the kernel is asked, no longer than a look may take
	diag diagnostics
}

// NewApp returns the app that listens on ports.
func NewApp(ports ...int) *App { return &App{ports: ports, table: procnet.Kernel()} }

// Listening tells whether anybody accepts connections on one of the ports. It
// asks the kernel's socket diagnostics, and /proc/net/tcp where they are
// refused.
func (a *App) Listening(ctx context.Context) (bool, error) {
	listening := false
	a.mu.Lock()
	err := a.diag.dump(ctx, a.ports, 1<<listen, func(*socket) error {
		listening = true
		return nil
	})
	a.mu.Unlock()
	switch {
	case err == nil:
		return listening, nil
	case !refused(err):
		return false, fmt.Errorf("looking whether the app listens: %w", err)
	}
	return a.listeningByTable()
}

func (a *App) listeningByTable() (bool, error) {
	listeners, err := a.table.Listeners()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(a.ports, func(port int) bool { return listeners[port] }), nil
}
