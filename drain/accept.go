package drain

import (
	"context"
	"log/slog"
	"time"
)

// acceptState is what is known of a proxy: whether it accepts new work.
type acceptState int

const (
	accepting acceptState = iota
	stopped
	uncertain // the last call failed, or has not ended: it may have taken effect
)

// An acceptControl makes a proxy stop accepting new work, or posts the app's
// notice. A drain does not wait for it: a proxy that cannot be reached is counted
// all the same. It is a task; the Drainer's lock guards it.
type acceptControl struct {
	name    string
	done    string // what the timeline says when it has stopped
	control AcceptStopper
	worker  *worker
	journal *journal

	stop    bool        // the target
	until   time.Time   // when there is no more use in trying to reach it; zero: never
	state   acceptState // where it is
	dueAt   time.Time   // no call before then
	drained bool        // there was a drain before
	noted   bool        // the timeline of this drain says that it has stopped
	lastErr string      // of the last call; empty after a success
	retry   backoff

	// A call that had no good answer may take effect after the one that undoes it,
	// which is then made once more.
	stops, starts doubt
}

// noticeAdapter makes a Notice fit an acceptControl.
type noticeAdapter struct{ notice Notice }

func (n noticeAdapter) StopAccepting(ctx context.Context) error  { return n.notice.Post(ctx) }
func (n noticeAdapter) StartAccepting(ctx context.Context) error { return n.notice.Remove(ctx) }

// setLocked sets the target. A call under way ends by itself, since a server
// that has read it would carry it out after the next one; it does not count.
func (a *acceptControl) setLocked(stop bool, until time.Time) {
	a.stop, a.until, a.dueAt, a.lastErr = stop, until, time.Time{}, ""
	a.drained, a.noted = a.drained || stop, false
	a.retry.reset()
	a.worker.retargetLocked()
}

// nextLocked is a task's.
func (a *acceptControl) nextLocked(now time.Time) (*call, time.Duration) {
	want := accepting
	if a.stop {
		want = stopped
	}
	starter, canStart := a.control.(AcceptStarter)
	switch {
	case a.stop && !a.until.IsZero() && !now.Before(a.until):
		return nil, forever
	case !a.stop && !canStart:
		a.state = accepting // its documentation says that it stays stopped
		return nil, forever
	case a.state == want:
		return nil, forever
	case now.Before(a.dueAt):
		return nil, a.dueAt.Sub(now)
	}
	a.state = uncertain
	made, _ := a.doubtsLocked()
	made.called(now, callLimit)
	return &call{
		whom: a.name, limit: callLimit, mustFinish: true,
		do: func(ctx context.Context) (answer, error) {
			if want == stopped {
				return answer{}, a.control.StopAccepting(ctx)
			}
			return answer{}, starter.StartAccepting(ctx)
		},
	}, 0
}

// doneLocked is a task's.
func (a *acceptControl) doneLocked(_ *call, _ answer, err error, now time.Time) {
	if err != nil {
		a.dueAt = now.Add(a.retry.wait())
		a.failedLocked(err)
		return
	}
	a.lastErr = ""
	made, undone := a.doubtsLocked()
	made.answered()
	if a.stop && !a.noted {
		a.noted = true
		a.journal.noteLocked("%s: %s", a.name, a.done)
	}
	switch {
	case now.Before(undone.until):
		a.dueAt = undone.until // and stays uncertain until then
	case a.stop:
		a.state = stopped
	default:
		a.state = accepting
	}
}

// doubtsLocked returns the doubt about the calls for the target, and about those
// that they undo.
func (a *acceptControl) doubtsLocked() (made, undone *doubt) {
	if a.stop {
		return &a.stops, &a.starts
	}
	return &a.starts, &a.stops
}

// failedLocked logs an error, unless it is the same as the last one.
func (a *acceptControl) failedLocked(err error) {
	if err.Error() == a.lastErr {
		return
	}
	a.lastErr = err.Error()
	level := slog.LevelWarn
	if !a.drained {
		level = slog.LevelInfo // the proxy may start later than the sidecar
	}
	slog.Log(context.Background(), level, "drain: "+a.name+" could not be notified, will be tried again", "draining", a.stop, "error", err)
}
