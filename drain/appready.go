package drain

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

const (
	// askReadyEvery is how often the app is asked whether it is ready, and
	// askReadyLimit how long one answer may take.
	askReadyEvery = time.Second
	askReadyLimit = time.Second
	// notReadyAfter is how many answers in a row must say that an app is not ready
	// until it counts as such, as a kubelet's probe does (failureThreshold).
	notReadyAfter = 3
)

// registersLocked reports whether the sidecar registers the app in any registry.
func (d *Drainer) registersLocked() bool {
	return slices.ContainsFunc(d.registrations, func(r *registration) bool { return r.registering.ours() })
}

// startWatchingReady has the app asked, where the sidecar registers it.
func (d *Drainer) startWatchingReady() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cfg.AppReady != nil && d.registersLocked() {
		d.spawn(d.watchReady)
	}
}

// watchReady asks the app whether it is ready, for as long as the process lives. In
// a drain it is not asked: to some counters that would be work.
func (d *Drainer) watchReady() {
	failures, since := 0, time.Time{}
	for d.ctx.Err() == nil {
		wait := askReadyEvery
		if serving, from := d.serves(); !serving {
			wait = forever
		} else {
			if !from.Equal(since) {
				failures, since = 0, from
			}
			err := d.askReady()
			if err == nil {
				failures = 0
			} else {
				failures++
			}
			if err == nil || failures >= notReadyAfter {
				d.appReady(err, from)
			}
		}
		pause(d.ctx, wait, d.servesAgain)
	}
}

// askReady asks the app once.
func (d *Drainer) askReady() error {
	ctx, cancel := context.WithTimeout(d.ctx, askReadyLimit)
	defer cancel()
	return guard("the question whether the app is ready", func() error { return d.cfg.AppReady(ctx) })
}

// serves reports whether the pod serves, and since when.
func (d *Drainer) serves() (bool, time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.run == nil && !d.stopping, d.totals.since
}

// appReady records what the app has said, unless there was a drain since from.
func (d *Drainer) appReady(err error, from time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run == nil && !d.stopping && d.totals.since.Equal(from) {
		d.appReadyLocked(err == nil, err)
	}
}

// appReadyLocked tells the registries in which the sidecar registers the app
// whether that is ready.
func (d *Drainer) appReadyLocked(ready bool, why error) {
	if d.run != nil || d.stopping {
		return
	}
	if !ready && why != nil && d.registersLocked() && !d.notReady {
		slog.Info("app: not ready", "reason", clip(why.Error()))
	}
	d.notReady = !ready
	for _, r := range d.registrations {
		r.appReadyLocked(ready)
	}
}

// appLooksReadyLocked does the same by a look at the app's ports, where the app
// cannot be asked. While it cannot be seen who listens, what was seen stands, and an
// app that was never seen is taken as if it listened, as everywhere.
func (d *Drainer) appLooksReadyLocked() {
	switch {
	case d.cfg.AppReady != nil:
	case d.app.known:
		d.appReadyLocked(d.app.all(), nil)
	case slices.ContainsFunc(d.registrations, func(r *registration) bool { return r.registering.ours() && !r.registering.known }):
		d.appReadyLocked(true, nil)
	}
}
