package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// errNegative is a counter's own mistake.
var errNegative = errors.New("it says less than zero")

// sample is what one counter said at one look.
type sample struct {
	name string
	Reading
	err error
}

// round is one look at all counters.
type round struct {
	began      time.Time // no reading is older than this
	samples    []sample
	appListens bool // by a look after the readings, where one was taken
}

// meter reads one counter, one reading at a time.
type meter struct {
	NamedCounter
	turn chan struct{} // holds one token: who has it may read

	// Guarded by the Drainer's lock.
	failures uint64    // readings that failed
	inARow   int       // the last ones of them
	lastErr  string    // of the last reading, as it was logged; empty when it succeeded
	loggedAt time.Time // when the log was last told of a failure
}

func newMeter(n NamedCounter) *meter {
	m := &meter{NamedCounter: n, turn: make(chan struct{}, 1)}
	m.turn <- struct{}{}
	return m
}

// learn has the counter learn of the app until ctx ends, if it can. One that
// panics has learned enough: its readings are guarded by themselves.
func (m *meter) learn(ctx context.Context) {
	learner, ok := m.Counter.(Learner)
	if !ok {
		return
	}
	if err := guard(m.Name+" counter", func() error {
		learner.Learn(ctx)
		return nil
	}); err != nil {
		slog.Error("counter: learning about the app has ended", "counter", m.Name, "error", err)
	}
}

// learned returns what the counter has learned; nil when it does not learn.
func (m *meter) learned() *LearnedState {
	learner, ok := m.Counter.(Learner)
	if !ok {
		return nil
	}
	l := learner.Learned()
	s := &LearnedState{Text: clip(l.Text), Answers: l.Answers, LongestSeconds: seconds(l.Longest)}
	if l.Silence > 0 {
		silence := seconds(l.Silence)
		s.SilenceSeconds = &silence
	}
	return s
}

func (m *meter) read(ctx context.Context) sample {
	ctx, cancel := context.WithTimeout(ctx, counterCallLimit)
	defer cancel()
	s := sample{name: m.Name}
	select {
	case <-m.turn:
		defer func() { m.turn <- struct{}{} }()
	case <-ctx.Done():
		s.err = fmt.Errorf("the reading before it has not ended: %w", ctx.Err())
		return s
	}
	s.err = guard(m.Name+" counter", func() (err error) {
		s.Reading, err = m.Counter.Count(ctx)
		return err
	})
	if s.err == nil && s.InFlight < 0 {
		s.err = fmt.Errorf("%w: %d", errNegative, s.InFlight)
	}
	return s
}

// readAll looks at all counters side by side.
func (d *Drainer) readAll(ctx context.Context) round {
	r := round{began: time.Now(), samples: make([]sample, len(d.meters))}
	var all sync.WaitGroup
	for i, m := range d.meters {
		all.Go(func() { r.samples[i] = m.read(ctx) })
	}
	all.Wait()
	if ctx.Err() == nil { // else they were called off, which says nothing of the counters
		d.mu.Lock()
		for i, m := range d.meters {
			d.bookLocked(m, r.samples[i].err)
		}
		d.mu.Unlock()
	}
	return r
}

const (
	// startPatience is how long an app may take to start before a counter of
	// its work that cannot be read is something to tell, where its port is not
	// known, or nobody listens on it.
	startPatience = time.Minute
	// startSettles is how long after it listens its statistics may not be there.
	startSettles = 5 * time.Second
	// unreadableAfter is how many readings in a row must fail in a drain before
	// people are told.
	unreadableAfter = 2
	// logErrorsEvery is the least time between two lines in the log on a counter
	// whose errors are never the same.
	logErrorsEvery = 5 * time.Second
)

// tryCounters reads each counter once when the app has started, so that a
// mistake shows before the first drain.
func (d *Drainer) tryCounters() {
	for wait := time.Second; ; {
		pause(d.life, wait, nil)
		if d.life.Err() != nil {
			return
		}
		d.mu.Lock()
		may := d.mayComplainLocked(time.Now())
		d.mu.Unlock()
		if may {
			d.readAll(d.life)
			return
		}
	}
}

// mayComplainLocked reports whether a counter that cannot be read is something
// to tell: an app that has not started yet has nothing to read.
func (d *Drainer) mayComplainLocked(now time.Time) bool {
	started := !d.appStarted.IsZero() && now.Sub(d.appStarted) >= startSettles
	return started || d.leaving != nil || now.Sub(d.began) >= startPatience
}

// bookLocked takes in how a reading has ended, and tells the log once of each
// change.
func (d *Drainer) bookLocked(m *meter, err error) {
	now := time.Now()
	if err == nil {
		m.inARow = 0
		if m.lastErr != "" {
			m.lastErr = ""
			slog.Info("counter: can be read again", "counter", m.Name)
		}
		return
	}
	m.failures++
	m.inARow++
	text := clip(err.Error())
	if text == m.lastErr || !d.mayComplainLocked(now) || m.lastErr != "" && now.Sub(m.loggedAt) < logErrorsEvery {
		return
	}
	m.lastErr, m.loggedAt = text, now
	slog.Warn("counter: cannot be read; a drain waits until it can, or its budget ends", "counter", m.Name, "error", err)
}

// tellUnreadableLocked tells people of counters that cannot be read in the drain
// under way, once of each.
func (d *Drainer) tellUnreadableLocked(samples []sample) {
	l := d.leaving
	if l == nil || l.outcome != "" {
		return
	}
	for i, s := range samples {
		if s.err == nil || d.meters[i].inARow < unreadableAfter || l.unreadable[s.name] {
			continue
		}
		if l.unreadable == nil {
			l.unreadable = map[string]bool{}
		}
		l.unreadable[s.name] = true
		text := clip(s.err.Error())
		l.mark(fmt.Sprintf("%s: cannot be read: %s", s.name, text))
		d.emitLocked(EventUnreadable, "the counter %s cannot be read, and the drain waits until it can or the budget ends: %s", s.name, text)
	}
}

// changes returns a channel that receives when a counter may have changed, and
// whether every counter can tell.
func (d *Drainer) changes(ctx context.Context) (wake chan struct{}, all bool) {
	wake, all = make(chan struct{}, 1), true
	for _, m := range d.meters {
		n, ok := m.Counter.(Notifier)
		if !ok {
			all = false
			continue
		}
		var changed <-chan struct{}
		if err := guard(m.Name+" counter", func() error {
			changed = n.Changed(ctx)
			return nil
		}); err != nil {
			slog.Error("counter: cannot say when it changes, it is polled instead", "counter", m.Name, "error", err)
		}
		if changed == nil {
			all = false
			continue
		}
		d.goroutine(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case _, open := <-changed:
					if !open {
						return
					}
					poke(wake)
				}
			}
		})
	}
	return wake, all
}

// inFlight adds up a round. It returns false when a counter could not be read.
func inFlight(samples []sample) (sum int64, known bool) {
	known = true
	for _, s := range samples {
		if s.err != nil {
			known = false
			continue
		}
		if sum += s.InFlight; sum < 0 { // the sum overflowed
			return 0, false
		}
	}
	return sum, known
}
