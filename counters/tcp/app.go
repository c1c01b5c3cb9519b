package tcp

import (
	"context"
	"fmt"
	"sync"

	"lastcall/internal/procnet"
)

// App tells whether the app listens: it is a drain.App. A look at it costs the
// same however many connections there are.
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
	for _, port := range a.ports {
		if listening, err := a.table.Listening(port); listening || err != nil {
			return listening, err
		}
	}
	return false, nil
}
