package drain

import (
	"slices"
	"time"
)

// maxListeners bounds how many sockets of one port are remembered.
const maxListeners = 4096

// listeners is what is known of who listens on the app's ports. It takes looks
// in, one after the other, and decides nothing.
type listeners struct {
	ports  []*portState
	known  bool      // the last look succeeded
	since  time.Time // when the first look began; zero: none has succeeded
	goneAt time.Time // since when no port has been listened on; zero: one is, or that is not known
}

// portState is what is known of who listens on one port. A new start is seen by
// identity: none of those who listened before is there, and somebody else is.
// Where the sockets of old and new are there side by side, the one has handed
// the port over to the other (a reload), and nothing was started.
type portState struct {
	port   int
	listen bool     // somebody did at the last look
	last   []uint64 // who did, when somebody last did; nil: nobody ever has
	starts uint64   // how many new starts were seen, the first included

	// Of the last hook: whether somebody listened when it was called, by the
	// first look after that, and whether there has been a new start since.
	atHook    bool
	restarted bool
}

func newListeners(ports []int) listeners {
	var l listeners
	for _, port := range ports {
		l.ports = append(l.ports, &portState{port: port})
	}
	return l
}

// look records a look that began at the time at, and returns how many ports
// were seen to be started.
func (l *listeners) look(at time.Time, now map[int][]uint64) (started int) {
	l.known = true
	if l.since.IsZero() {
		l.since = at
	}
	for _, p := range l.ports {
		if p.look(now[p.port]) {
			started++
		}
	}
	switch {
	case l.any():
		l.goneAt = time.Time{}
	case l.goneAt.IsZero():
		l.goneAt = at
	}
	return started
}

// failed records that a look has failed. Who listens now is not known; who
// did is still remembered, so that a new start meanwhile is seen later.
func (l *listeners) failed() {
	l.known = false
	l.goneAt = time.Time{}
}

// look records who listens, and reports whether that is a new start.
func (p *portState) look(now []uint64) (started bool) {
	listened := p.listen
	p.listen = len(now) > 0
	if !p.listen {
		return false
	}
	now = now[:min(len(now), maxListeners)]
	same := slices.ContainsFunc(now, func(id uint64) bool { return id != 0 && slices.Contains(p.last, id) })
	if slices.Contains(now, 0) || slices.Contains(p.last, 0) {
		same = listened // without identities, only absence shows a new start
	}
	if !same {
		p.starts++
		p.restarted = p.restarted || p.last != nil && p.atHook
	}
	p.last = slices.Clone(now)
	return !same
}

// hook records that a hook is called now.
func (l *listeners) hook() {
	for _, p := range l.ports {
		p.atHook, p.restarted = false, false
	}
}

// hookLooked records that the last look is the first one since the hook was
// called.
func (l *listeners) hookLooked() {
	for _, p := range l.ports {
		p.atHook = p.listen
	}
}

// restarted returns the ports that were started again since the hook was called.
func (l *listeners) restarted() (ports []int) {
	for _, p := range l.ports {
		if p.restarted {
			ports = append(ports, p.port)
		}
	}
	return ports
}

// any reports whether somebody listened on one of the ports at the last look
// that succeeded.
func (l *listeners) any() bool {
	return slices.ContainsFunc(l.ports, func(p *portState) bool { return p.listen })
}

// all reports whether somebody did on each of the ports.
func (l *listeners) all() bool {
	return !slices.ContainsFunc(l.ports, func(p *portState) bool { return !p.listen })
}

// ever reports whether somebody has ever listened on one of the ports.
func (l *listeners) ever() bool {
	return slices.ContainsFunc(l.ports, func(p *portState) bool { return p.last != nil })
}

// gone reports whether nobody listens any more, by the last look.
func (l *listeners) gone() bool { return l.known && !l.goneAt.IsZero() }

// back reports whether the app listens as it did when the hook was called: on
// each port that it listened on then, or else on any.
func (l *listeners) back() bool {
	return l.known && l.any() && !slices.ContainsFunc(l.ports, func(p *portState) bool { return p.atHook && !p.listen })
}

// silent returns the ports that nobody has ever listened on; none while that
// is not known.
func (l *listeners) silent() (ports []int) {
	if l.since.IsZero() {
		return nil
	}
	for _, p := range l.ports {
		if p.last == nil {
			ports = append(ports, p.port)
		}
	}
	return ports
}
