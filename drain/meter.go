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
	began   time.Time // no reading is older than this
	samples []sample
}

// meter reads one counter, one reading at a time.
type meter struct {
	Named
	turn chan struct{} // holds one token: who has it may read
}

func newMeter(n Named) *meter {
	m := &meter{Named: n, turn: make(chan struct{}, 1)}
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
	return r
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
		changed := n.Changed(ctx)
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
