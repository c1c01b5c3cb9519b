package drain

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// lookLimit is how long one look at the pod's ports may take.
	lookLimit = time.Second
	// silentFor is how long nobody may listen on a port before a warning says
	// that it may be the wrong one.
	silentFor = time.Minute
	// otherPortsEvery is how often the watch reads which other ports the pod
	// listens on, while one of the app's is silent and that matters.
	otherPortsEvery = time.Second
)

// An appWatch holds what is known of who listens in the pod. Where the app's
// port is not known (app is nil), nothing ever is.
type appWatch struct {
	mu  *sync.Mutex // the Drainer's
	app App
	// lookedLocked is called after each look, with the number of ports that
	// were seen to be started.
	lookedLocked func(started int)
	free         chan struct{} // holds one token: who has it may look
	soon         chan struct{} // receives when a look is wanted at once

	// Guarded by mu.
	listeners
	startedAt time.Time // when the app was first seen to be started; zero: not yet
	err       string    // why the last look failed; empty after a success
	hookAt    time.Time // when the last hook was called
	hookDue   bool      // no look has begun since then

	othersAt     time.Time // when lookAtOthers was last called; zero: never
	others       []int     // which those are
	othersKnown  bool
	silentWarned bool // there was a warning of ports that nobody listens on
}

func newAppWatch(mu *sync.Mutex, app App) *appWatch {
	w := &appWatch{mu: mu, app: app, free: make(chan struct{}, 1), soon: make(chan struct{}, 1)}
	w.free <- struct{}{}
	if app != nil {
		w.listeners = newListeners(app.Ports())
	}
	return w
}

// look looks who listens on the app's ports, one look at a time. It reports
// whether somebody listens, and whether that is known.
func (w *appWatch) look(ctx context.Context) (listening, known bool) {
	if w.app == nil {
		return false, false
	}
	limited, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	select {
	case <-w.free:
		defer func() { w.free <- struct{}{} }()
	case <-limited.Done():
		return false, false
	}
	at := time.Now()
	var now map[int][]uint64
	err := guard("the look at the app's ports", func() (err error) {
		now, err = w.app.Listeners(limited)
		return err
	})
	if err != nil && ctx.Err() != nil {
		return false, false // cancelled: that says nothing of the app
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lookedLocked(w.bookLocked(at, now, err))
	return w.any(), w.known
}

// bookLocked records a look that began at the time at. It returns how many ports
// were seen to be started.
func (w *appWatch) bookLocked(at time.Time, now map[int][]uint64, err error) (started int) {
	if err != nil {
		if w.err == "" {
			slog.Warn("app: cannot look who listens on LASTCALL_APP_PORT: until that works, a restart of the app cannot be told from the pod's deletion, nor can it be seen when the app is gone; it is taken as if it listened",
				"error", err)
		}
		w.err = clip(err.Error())
		w.failed()
		return 0
	}
	if w.err != "" {
		w.err = ""
		slog.Info("app: who listens on LASTCALL_APP_PORT can be seen again")
	}
	if started = w.listeners.look(at, now); started > 0 && w.startedAt.IsZero() {
		w.startedAt = at
	}
	if w.hookDue && !at.Before(w.hookAt) {
		w.hookDue = false
		w.hookLooked()
	}
	return started
}

// hookLocked records that a preStop hook is called. A restart is recognised by
// listeners that differ from those of this moment.
func (w *appWatch) hookLocked(now time.Time) {
	w.hook()
	w.hookAt, w.hookDue = now, true
	notify(w.soon)
}

// lookAtOthers looks which other ports the pod listens on.
func (w *appWatch) lookAtOthers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	at := time.Now()
	var ports []int
	err := guard("the look at the pod's ports", func() (err error) {
		ports, err = w.app.OtherPorts(ctx)
		return err
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.othersAt, w.others, w.othersKnown = at, ports, err == nil
}

// othersDueLocked reports whether it is time to look at the other ports, if
// that matters.
func (w *appWatch) othersDueLocked(now time.Time) bool {
	return len(w.silent()) > 0 && (w.othersAt.IsZero() || now.Sub(w.othersAt) >= otherPortsEvery)
}

// inDoubtLocked returns the ports whose work a drain may not see: nobody has
// ever listened on them, and the pod listens on others. Where it listens on no
// other, there is nobody whose work could be missed.
func (w *appWatch) inDoubtLocked() []int {
	if w.app == nil || w.othersKnown && len(w.others) == 0 {
		return nil
	}
	return w.silent()
}

// silentTextLocked says in a sentence which ports are silent, and on which the
// pod listens.
func (w *appWatch) silentTextLocked() string {
	others := "it cannot be seen on which others the pod listens"
	switch {
	case w.othersKnown && len(w.others) == 0:
		others = "the pod listens on no other"
	case w.othersKnown:
		others = "the pod listens on " + portList(w.others)
	}
	return fmt.Sprintf("nobody has ever listened on port %s of LASTCALL_APP_PORT: the app has not started, or the port is wrong; %s", portList(w.silent()), others)
}

// warningsLocked returns what should be corrected, one sentence each.
func (w *appWatch) warningsLocked() (warnings []string) {
	if w.silentWarned && len(w.silent()) > 0 {
		warnings = append(warnings, w.silentTextLocked())
	}
	if w.err != "" {
		warnings = append(warnings, "it cannot be seen who listens on LASTCALL_APP_PORT, so a restart of the app cannot be told from the pod's deletion: "+w.err)
	}
	return warnings
}
