package drain

import (
	"context"
	"sync"
	"time"
)

// callLimit is how long one call to a registry, a proxy or the app's notice may
// take. One that hangs must leave room in the budget for another try.
const callLimit = 5 * time.Second

// forever is how long a task waits that has nothing to do until its target
// changes.
const forever time.Duration = -1

// A call is one call to a plug-in, as a task wants it made.
type call struct {
	op    string        // what it asks for; metrics count it by this name unless it is empty
	whom  string        // who is called, for the error of one that panics
	limit time.Duration // how long it may take
	// mustFinish keeps the call when the target changes: a server that has
	// already read it would carry it out after the call that undoes it.
	mustFinish bool
	do         func(context.Context) (answer, error)
	// landedLocked, if there is one, is called when the call has succeeded,
	// whether its target still stands or not.
	landedLocked func()
}

// An answer is what a call returned besides an error.
type answer struct {
	yes     bool   // to a question
	text    string // what was found
	located bool   // the registry has been seen to hold the instance
	says    bool   // located is known: a call that panics does not say
	gaveUp  string // why the withdrawal can never succeed; empty: it can
}

// A task is something outside the process that is to be brought to a target,
// call by call. It decides and calls nothing: its methods need the Drainer's
// lock, and depend on nothing but the task's state and the time.
type task interface {
	// nextLocked returns the call that is due, or nil and how long to wait
	// before asking again. The call counts as made: it may take effect even if
	// it fails.
	nextLocked(now time.Time) (*call, time.Duration)
	// doneLocked records how a call has ended. It is not called for a call whose
	// target has changed meanwhile.
	doneLocked(c *call, a answer, err error, now time.Time)
}

// A worker makes the calls of one task, one at a time. It is the only one that
// calls registries, proxies that stop accepting and the app's notice.
type worker struct {
	mu      *sync.Mutex // the Drainer's; it guards the task and what follows below
	task    task
	changed chan struct{} // there may be another call to make

	generation uint64             // of the target: it grows with each change
	cancel     context.CancelFunc // of the call under way; nil when there is none
	mustFinish bool               // that call is not to be cancelled
	calls      map[string]*CallCount
}

// A doubt is until when calls of one kind that had no good answer may yet take
// effect, even after a call that undoes them. The zero value is none.
type doubt struct {
	until  time.Time
	before time.Time // the same without the last call
}

// called records that a call is made, of a kind that may take as long as limit. A
// call that was cut off sooner, by the budget, is in doubt as long.
func (d *doubt) called(now time.Time, limit time.Duration) {
	d.before, d.until = d.until, now.Add(limit+callLimit)
}

// answered records that the last call has succeeded.
func (d *doubt) answered() { d.until = d.before }

func newWorker(mu *sync.Mutex, t task) *worker {
	return &worker{mu: mu, task: t, changed: make(chan struct{}, 1), calls: map[string]*CallCount{}}
}

// run makes calls until ctx ends.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		if wait := w.step(ctx); wait != 0 {
			pause(ctx, wait, w.changed)
		}
	}
}

// step makes the next call if one is due, and returns how long to wait before
// the next step.
func (w *worker) step(ctx context.Context) time.Duration {
	w.mu.Lock()
	c, wait := w.task.nextLocked(time.Now())
	if c == nil {
		w.mu.Unlock()
		return wait
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	generation := w.generation
	w.cancel, w.mustFinish = cancel, c.mustFinish
	w.mu.Unlock()

	var a answer
	err := guard(c.whom, func() (err error) {
		a, err = c.do(ctx)
		return err
	})

	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel = nil
	current := w.generation == generation
	if err == nil && c.landedLocked != nil {
		c.landedLocked()
	}
	if current || err == nil { // else it was cancelled, or is no longer wanted
		w.countLocked(c.op, err)
	}
	if current {
		w.task.doneLocked(c, a, err, time.Now())
	}
	return 0
}

// countLocked counts a call, for metrics.
func (w *worker) countLocked(op string, err error) {
	if op == "" {
		return
	}
	count := w.calls[op]
	if count == nil {
		count = &CallCount{}
		w.calls[op] = count
	}
	count.Calls++
	if err != nil {
		count.Failures++
	}
}

// retargetLocked records that the task has another target. The call under way
// is cancelled, unless it must finish; whatever comes of it no longer counts.
func (w *worker) retargetLocked() {
	w.generation++
	if w.cancel != nil && !w.mustFinish {
		w.cancel()
	}
	notify(w.changed)
}

// cancelLocked cancels the call under way, even one that must finish.
func (w *worker) cancelLocked() {
	if w.cancel != nil {
		w.cancel()
	}
}

// callsLocked returns how many calls were made, by what they asked for.
func (w *worker) callsLocked() map[string]CallCount {
	calls := map[string]CallCount{}
	for op, count := range w.calls {
		calls[op] = *count
	}
	return calls
}
