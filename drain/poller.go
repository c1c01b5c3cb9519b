package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// readLimit is how long one reading may take.
	readLimit = 2 * time.Second
	// logErrorsEvery is the least time between two lines in the log on a counter
	// whose errors are never the same.
	logErrorsEvery = 5 * time.Second
)

// errNegative is a counter's own mistake.
var errNegative = errors.New("it says less than zero")

// A reading is what one counter said.
type reading struct {
	name string
	Reading
	err error
}

// A snapshot is one reading of each counter, in their order.
type snapshot struct {
	began      time.Time // no reading is older than this
	readings   []reading
	appListens bool // by a look after the readings, where one was taken
}

// inFlight adds up readings. It returns false when a counter could not be read.
func inFlight(readings []reading) (sum int64, known bool) {
	known = true
	for _, r := range readings {
		if r.err != nil {
			known = false
			continue
		}
		if sum += r.InFlight; sum < 0 { // the sum overflowed
			return 0, false
		}
	}
	return sum, known
}

// A poller reads one counter, one reading at a time.
type poller struct {
	NamedCounter
	free chan struct{} // holds one token: who has it may read

	// Guarded by the Drainer's lock.
	failures uint64    // readings that failed
	inARow   int       // the last ones of them
	lastErr  string    // of the last reading, as it was logged; empty when it succeeded
	loggedAt time.Time // when a failure was last logged
}

func newPoller(n NamedCounter) *poller {
	p := &poller{NamedCounter: n, free: make(chan struct{}, 1)}
	p.free <- struct{}{}
	return p
}

// learn has the counter learn of the app until ctx ends, if it can. One that
// panics has learned enough: its readings are guarded by themselves.
func (p *poller) learn(ctx context.Context) {
	learner, ok := p.Counter.(Learner)
	if !ok {
		return
	}
	if err := guard(p.Name+" counter", func() error {
		learner.Learn(ctx)
		return nil
	}); err != nil {
		slog.Error("counter: learning about the app has ended", "counter", p.Name, "error", err)
	}
}

func (p *poller) read(ctx context.Context) reading {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	r := reading{name: p.Name}
	select {
	case <-p.free:
		defer func() { p.free <- struct{}{} }()
	case <-ctx.Done():
		r.err = fmt.Errorf("the reading before it has not ended: %w", ctx.Err())
		return r
	}
	r.err = guard(p.Name+" counter", func() (err error) {
		r.Reading, err = p.Counter.Count(ctx)
		return err
	})
	if r.err == nil && r.InFlight < 0 {
		r.err = fmt.Errorf("%w: %d", errNegative, r.InFlight)
	}
	return r
}

// changes returns the channel of a counter that reports its changes, until ctx
// ends; nil if it cannot.
func (p *poller) changes(ctx context.Context) (changed <-chan struct{}) {
	n, ok := p.Counter.(Notifier)
	if !ok {
		return nil
	}
	if err := guard(p.Name+" counter", func() error {
		changed = n.Changed(ctx)
		return nil
	}); err != nil {
		slog.Error("counter: cannot say when it changes, it is polled instead", "counter", p.Name, "error", err)
	}
	return changed
}

// bookLocked records how a reading has ended, and logs each change once; a
// failure only if that is worth reporting by now.
func (p *poller) bookLocked(err error, worth bool, now time.Time) {
	if err == nil {
		p.inARow = 0
		if p.lastErr != "" {
			p.lastErr = ""
			slog.Info("counter: can be read again", "counter", p.Name)
		}
		return
	}
	p.failures++
	p.inARow++
	text := clip(err.Error())
	if text == p.lastErr || !worth || p.lastErr != "" && now.Sub(p.loggedAt) < logErrorsEvery {
		return
	}
	p.lastErr, p.loggedAt = text, now
	slog.Warn("counter: cannot be read; a drain waits until it can, or its budget ends", "counter", p.Name, "error", err)
}

// pollers are those of all counters.
type pollers struct {
	mu  *sync.Mutex // the Drainer's
	all []*poller
	// worthReportingLocked reports whether a counter that cannot be read is worth a
	// line in the log.
	worthReportingLocked func(now time.Time) bool
}

// read reads all counters side by side.
func (p *pollers) read(ctx context.Context) snapshot {
	s := snapshot{began: time.Now(), readings: make([]reading, len(p.all))}
	var all sync.WaitGroup
	for i, one := range p.all {
		all.Go(func() { s.readings[i] = one.read(ctx) })
	}
	all.Wait()
	if ctx.Err() != nil {
		return s // they were cancelled, which says nothing of the counters
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for i, one := range p.all {
		one.bookLocked(s.readings[i].err, p.worthReportingLocked(now), now)
	}
	return s
}

// changes returns a channel that receives when a counter may have changed, until
// ctx ends, and whether every counter reports its changes. spawn runs the
// forwarding.
func (p *pollers) changes(ctx context.Context, spawn func(func())) (changed <-chan struct{}, all bool) {
	merged := make(chan struct{}, 1)
	all = true
	for _, one := range p.all {
		source := one.changes(ctx)
		if source == nil {
			all = false
			continue
		}
		spawn(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case _, open := <-source:
					if !open {
						return
					}
					notify(merged)
				}
			}
		})
	}
	return merged, all
}
