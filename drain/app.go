package drain

import (
	"context"
	"log/slog"
	"time"
)

const (
	// appLookLimit is how long one look at the app's port may take.
	appLookLimit = time.Second
	// startLookEvery is how often it is looked whether the app has started.
	startLookEvery = 500 * time.Millisecond
)

// awaitStart tells the keepers when the app listens for the first time.
func (d *Drainer) awaitStart() {
	for !d.appListens() {
		pause(d.life, startLookEvery, nil)
		if d.life.Err() != nil {
			return
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range d.keepers {
		k.appStarted()
	}
}

// appListens tells whether the app is seen to listen.
func (d *Drainer) appListens() bool {
	listening, err := d.lookAtApp(d.life)
	return err == nil && listening
}

// watchApp looks whether the app still listens, for as long as the drain is
// neither taken back nor replaced.
//
// An app that listens again after its hook was only restarted, as long as no
// signal has come: the kubelet runs preStop on every stop of a container, and
// starts it again only after the hook has returned.
func (d *Drainer) watchApp(ctx context.Context, l *leaving) {
	failed := false
	for ctx.Err() == nil {
		at := time.Now()
		listening, err := d.lookAtApp(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil != failed {
			if failed = err != nil; failed {
				slog.Warn("app: cannot tell whether it listens; taken as if it did", "error", err)
			}
		}
		d.mu.Lock()
		if d.leaving == l {
			d.appLooked(l, at, listening, err)
		}
		d.mu.Unlock()
		every := d.cfg.Poll
		if at.After(l.graceEnd) {
			every = max(every, time.Second) // a container in its back-off may take minutes
		}
		pause(ctx, every, nil)
	}
}

// appLooked takes in what a look that began at the time at has shown. Callers
// hold d.mu.
func (d *Drainer) appLooked(l *leaving, at time.Time, listening bool, err error) {
	gone := err == nil && !listening
	switch {
	case gone && l.goneSince.IsZero():
		l.goneSince = at
		d.note("the app does not listen")
	case gone && !l.goneSince.After(l.hookEnded):
		l.goneSince = at // it is, or still is, gone after its hook
	case err == nil && listening && !l.goneSince.IsZero():
		afterHook := l.goneSince.After(l.hookEnded)
		l.goneSince = time.Time{}
		d.note("the app listens again")
		if afterHook && d.restartable(l) {
			d.takeBack(l, "the app was only restarted")
		}
	}
	if gone != l.appGone {
		l.appGone = gone
		poke(d.appSeen)
	}
}

// restartable tells whether an app that starts now has been restarted, rather
// than its pod deleted. Callers hold d.mu.
func (d *Drainer) restartable(l *leaving) bool {
	return l.hooked && l.hooks == 0 && !d.stopping
}

func (d *Drainer) lookAtApp(ctx context.Context) (listening bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, appLookLimit)
	defer cancel()
	err = guard("the look at the app's port", func() (err error) {
		listening, err = d.cfg.App.Listening(ctx)
		return err
	})
	return listening, err
}

// lastMoment is when the process sees to its last things, whether the app is
// gone or not.
func (d *Drainer) lastMoment(l *leaving) time.Time {
	return l.graceEnd.Add(-d.cfg.leaveEarly())
}

// awaitApp returns when the app is gone, a second signal has come, or the
// grace period is about to end. Where the app's port is not known, there is
// only a registry to wait for: its app would register itself again.
func (d *Drainer) awaitApp(l *leaving) {
	if d.cfg.App == nil && len(d.keepers) == 0 {
		return
	}
	timer := time.NewTimer(time.Until(d.lastMoment(l)))
	defer timer.Stop()
	for {
		d.mu.Lock()
		gone := l.appGone
		d.mu.Unlock()
		if gone {
			return
		}
		select {
		case <-timer.C:
			return
		case <-d.cut:
			return
		case <-d.appSeen:
		}
	}
}

// mayDeregister tells, by a look of its own, whether the app is gone or the
// grace period is about to end. A registry client in a live app would register
// itself again.
func (d *Drainer) mayDeregister(ctx context.Context) bool {
	d.mu.Lock()
	l := d.leaving
	d.mu.Unlock()
	if l == nil {
		return false
	}
	if !time.Now().Before(d.lastMoment(l)) {
		return true
	}
	if d.cfg.App == nil {
		return false
	}
	listening, err := d.lookAtApp(ctx)
	return err == nil && !listening
}

// deregister removes the instance from its registries. It returns by the end
// of the grace period, or a second after it where the sidecar was told to stop
// only then; at once when a second signal has come while the app lives.
func (d *Drainer) deregister(l *leaving, told time.Time) {
	if len(d.keepers) == 0 {
		return
	}
	end := l.graceEnd.Add(-d.cfg.leaveEarly() / 5)
	if told.After(d.lastMoment(l)) {
		end = time.Now().Add(d.cfg.leaveEarly()) // it has 2 s from then, in any case
	}
	if isClosed(d.cut) {
		if !d.mayDeregister(d.life) {
			slog.Warn("drain: ended by a signal while the app lives: it stays in its registries, out of service")
			return
		}
		if soon := time.Now().Add(d.cfg.leaveEarly()); soon.Before(end) {
			end = soon
		}
	}
	d.mu.Lock()
	var settled []chan struct{}
	for _, k := range d.keepers {
		k.order(deregistered, end)
		settled = append(settled, k.settled)
	}
	d.mu.Unlock()
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	for i, s := range settled {
		select {
		case <-s:
		case <-timer.C:
			slog.Error("drain: not deregistered in time; the registry drops the instance when its lease ends", "registry", d.keepers[i].Name)
			timer.Reset(0)
		}
	}
}
