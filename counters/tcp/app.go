package tcp

import (
	"context"
	"errors"
	"fmt"

	"lastcall/internal/procnet"
)

// App tells whether the app listens: it is a drain.App. A look at it costs the
// same however many connections there are.
type App struct {
	ports []int
	table procnet.Table
}

// NewApp returns the app that listens on ports.
func NewApp(ports ...int) *App { return &App{ports: ports, table: procnet.Kernel()} }

// errEnough ends a look early.
var errEnough = errors.New("enough was seen")

// Listening tells whether anybody accepts connections on one of the ports. It
// asks the kernel's socket diagnostics, and /proc/net/tcp where they are
// refused.
func (a *App) Listening(ctx context.Context) (bool, error) {
	err := dump(ctx, a.ports, 1<<listen, func(*socket) error { return errEnough })
	switch {
	case errors.Is(err, errEnough):
		return true, nil
	case err == nil:
		return false, nil
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
