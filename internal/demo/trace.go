package demo

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// phase is a pod's phase in the demo.
type phase string

// The phases. Those between serving and stopping are Lastcall's own.
const (
	starting    phase = "starting"
	serving     phase = "serving"
	withdrawing phase = "withdrawing"
	propagating phase = "propagating"
	draining    phase = "draining"
	stopping    phase = "stopping" // the app has received SIGTERM
	gone        phase = "gone"
)

// trace records one act, for the picture and for the results. Its times are
// relative to the act's beginning.
type trace struct {
	title string
	began time.Time
	tell  func(at time.Duration, text string) // called for each event; may be nil

	mu       sync.Mutex
	ended    time.Duration // 0 while the act runs
	pods     []podTrace
	requests int
	working  int // requests without an answer yet
	failures []failure
}

type podTrace struct {
	name    string
	changes []change
	note    string // a remark on its current state
}

type change struct {
	at time.Duration
	to phase
}

type failure struct {
	at  time.Duration
	err string
}

// now returns the pod's current phase.
func (p podTrace) now() phase {
	if len(p.changes) == 0 {
		return starting
	}
	return p.changes[len(p.changes)-1].to
}

func newTrace(title string, tell func(time.Duration, string)) *trace {
	return &trace{title: title, began: time.Now(), tell: tell}
}

func (t *trace) since() time.Duration { return time.Since(t.began) }

// say reports an event as a line of text.
func (t *trace) say(format string, args ...any) {
	if t.tell != nil {
		t.tell(t.since(), fmt.Sprintf(format, args...))
	}
}

// moves records that a pod has reached a phase. If it is already in that phase,
// only the note changes.
func (t *trace) moves(pod string, to phase, note string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := slices.IndexFunc(t.pods, func(p podTrace) bool { return p.name == pod })
	if n < 0 {
		n = len(t.pods)
		t.pods = append(t.pods, podTrace{name: pod})
	}
	p := &t.pods[n]
	p.note = note
	if len(p.changes) > 0 && p.now() == to {
		return
	}
	p.changes = append(p.changes, change{t.since(), to})
	if note != "" {
		note = ", " + note
	}
	t.say("%s: %s%s", pod, to, note)
}

func (t *trace) requested() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests++
	t.working++
}

func (t *trace) answered(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.working--
	if err != nil {
		t.failures = append(t.failures, failure{t.since(), err.Error()})
		t.say("a request failed: %v", err)
	}
}

func (t *trace) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = t.since()
}

// snapshot is the state of a trace at one moment.
type snapshot struct {
	title    string
	at       time.Duration
	running  bool
	pods     []podTrace
	requests int
	working  int
	failures []failure
}

func (t *trace) snapshot() snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := snapshot{
		title:    t.title,
		at:       t.ended,
		running:  t.ended == 0,
		requests: t.requests,
		working:  t.working,
		failures: slices.Clone(t.failures),
	}
	if s.running {
		s.at = t.since()
	}
	for _, p := range t.pods {
		p.changes = slices.Clone(p.changes)
		s.pods = append(s.pods, p)
	}
	return s
}
