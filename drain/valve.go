package drain

import (
	"context"
	"log/slog"
	"time"
)

// A valve is a proxy that can be told to take no new work, or the app's notice.
// It holds nothing up: a proxy that cannot be told is counted all the same.
type valve struct {
	name string
	done string // what is noted when it was told of a drain
	stop AcceptStopper
	d    *Drainer
	kick chan struct{}

	// Guarded by d.mu.
	closed bool      // as it should be
	until  time.Time // when there is no more use in trying to close it
	told   bool      // as it is
	unsure bool      // what it is is not known
}

func newValve(d *Drainer, name, done string, stop AcceptStopper) *valve {
	return &valve{name: name, done: done, stop: stop, d: d, kick: make(chan struct{}, 1)}
}

// posted makes a Notice fit a valve.
type posted struct{ notice Notice }

func (p posted) StopAccepting(ctx context.Context) error  { return p.notice.Post(ctx) }
func (p posted) StartAccepting(ctx context.Context) error { return p.notice.Remove(ctx) }

// turn opens or closes the valve. Callers hold d.mu.
func (v *valve) turn(closed bool, until time.Time) {
	v.closed, v.until = closed, until
	poke(v.kick)
}

func (v *valve) run(ctx context.Context) {
	retry := backoff{first: 100 * time.Millisecond, most: 2 * time.Second}
	lastErr := ""
	atStart := true // nothing was told yet, and nothing is but what an earlier process has left
	for ctx.Err() == nil {
		v.d.mu.Lock()
		closed, told, late := v.closed, v.told, v.closed && !time.Now().Before(v.until)
		if v.unsure {
			told = !closed
		}
		v.d.mu.Unlock()
		if closed == told || late {
			retry.reset()
			lastErr = ""
			pause(ctx, -1, v.kick)
			continue
		}
		v.d.mu.Lock()
		v.unsure = true // a call that fails may have acted
		atStart = atStart && !closed
		v.d.mu.Unlock()
		if err := v.tell(ctx, closed); err != nil {
			if err.Error() != lastErr {
				lastErr = err.Error()
				level := slog.LevelWarn
				if atStart {
					level = slog.LevelInfo // its proxy may start later than the sidecar
				}
				slog.Log(ctx, level, "drain: "+v.name+" could not be told, will be tried again", "draining", closed, "error", err)
			}
			pause(ctx, retry.wait(), v.kick)
			continue
		}
		v.d.mu.Lock()
		v.told, v.unsure, atStart = closed, false, false
		if closed {
			v.d.note("%s: %s", v.name, v.done)
		}
		v.d.mu.Unlock()
	}
}

func (v *valve) tell(ctx context.Context, closed bool) error {
	ctx, cancel := context.WithTimeout(ctx, registryCallLimit)
	defer cancel()
	return guard(v.name, func() error {
		if closed {
			return v.stop.StopAccepting(ctx)
		}
		if starter, ok := v.stop.(AcceptStarter); ok {
			return starter.StartAccepting(ctx)
		}
		return nil // what stays closed was told so in the plug-in's section
	})
}
