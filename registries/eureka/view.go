package eureka

import (
	"cmp"
	"maps"
	"math/bits"
	"slices"
	"sync"
	"time"

	"lastcall/internal/pace"
)

// A view is what one peer has been seen to hold of the pod and to answer its
// clients, from one Withdraw, or Restore, to the next. It says when the peer is
// asked again.
type view struct {
	calls sync.Mutex // held during a call; guards what follows
	steps map[name]*progress
	// lookedUp is set once names that were not known have been looked for, and
	// verified once there was seen to be a Eureka server.
	lookedUp, verified bool

	refresh time.Duration // how long clients use their copies
	since   time.Time     // the last change that was made, or the first look
	// held is what the peer held at heldAt, names that it does not know left out.
	held   map[name]seen
	heldAt time.Time
	took   time.Duration // how long the server took for it
	state  string        // the same as text, by which evidence is told from older one

	read map[answer]evidence
	// turnedAt is when the first answer was seen to have been renewed since the
	// last change, and goneSince when all had been. They are zero before.
	turnedAt, goneSince time.Time
	thorough            bool // answers were looked at although another one listed the pod
	outdated            bool // and showed that that one is kept for too long
	askAt               time.Time
	gone                bool // what stands until askAt
}

// An answer is one of those that clients read.
type answer struct {
	list
	accept string
}

// evidence is what one answer has shown.
type evidence struct {
	at    time.Time
	size  int    // bytes, unpacked
	gone  bool   // it did not hold the pod as available
	state string // what the server held then
}

// How long to wait between two looks, as parts of the time that clients take to
// forget the pod: a drain is at most that part longer than it would be if the
// server were asked all the time.
const (
	waitPart  = 0.044 // until the answers are renewed
	ownPart   = 0.4   // between two looks at the server's own entry meanwhile
	watchPart = 0.33  // while clients use the copies that they have
)

// lastLook is how long before clients have forgotten the pod the looks become as
// frequent as the drainer asks: what it ends on is never older than that.
const lastLook = 1100 * time.Millisecond

// view returns what p has been seen to answer.
func (r *Registry) view(p *peer) *view {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.views[p]
	if v == nil {
		if r.views == nil {
			r.views = map[*peer]*view{}
		}
		v = &view{steps: map[name]*progress{}, read: map[answer]evidence{}, since: time.Now(), refresh: r.refresh}
		r.views[p] = v
	}
	return v
}

func (v *view) progress(n name) *progress {
	if v.steps[n] == nil {
		v.steps[n] = &progress{}
	}
	return v.steps[n]
}

// changed is called when something was written: what was seen before is out of
// date, and the answers to clients are soon.
func (v *view) changed() {
	v.since = time.Now()
	v.held, v.heldAt, v.state = nil, time.Time{}, ""
	v.askAt, v.turnedAt, v.goneSince, v.thorough = time.Time{}, time.Time{}, time.Time{}, false
	v.outdated = false
}

// holds takes in what was read of n between two looks.
func (v *view) holds(n name, i seen) {
	held := maps.Clone(v.held)
	if held == nil {
		held = map[name]seen{}
	}
	held[n] = i
	v.setHeld(held, time.Now())
}

// stands reports whether the last look still stands, and what it has shown.
func (v *view) stands() (gone, ok bool) { return v.gone, time.Now().Before(v.askAt) }

// plan sets when the next look is due.
func (v *view) plan(gone bool) {
	now := time.Now()
	v.gone = gone
	if !gone {
		v.goneSince = time.Time{}
		since, waiting := v.since, v.refresh
		if !v.turnedAt.IsZero() {
			since, waiting = v.turnedAt, 0 // the others follow soon
		}
		pause := part(waitPart, now.Sub(since)+waiting)
		v.askAt = now.Add(pace.LessUpTo(pause, pause/10)) // it adds up over many looks
		return
	}
	if v.goneSince.IsZero() {
		v.goneSince = now
	}
	v.askAt = now
	if left := v.refresh - lastLook - now.Sub(v.goneSince); left > 0 {
		v.askAt = now.Add(watchPause(left, part(watchPart, v.refresh)))
	}
}

// watchPause divides the time that is left into equal pauses, none of which is
// longer than longest, and returns the first. It is less by chance, up to a
// fifth, as long as that does not make one pause more.
func watchPause(left, longest time.Duration) time.Duration {
	pauses := (left + longest - 1) / longest
	pause := left / pauses
	least := max(left-(pauses-1)*longest, pause-pause/5)
	return pace.LessUpTo(pause, pause-least)
}

// ownPause is how long what the server holds is not asked for again while its
// answers are waited for.
func (v *view) ownPause() time.Duration {
	return max(part(ownPart, time.Since(v.since)+v.refresh), 4*v.took) // a slow server is asked for the rest first
}

// next returns the answers that have not shown that the pod is gone since the
// server holds it as it does, the cheapest first, and of those that cost the
// same the one that was not looked at for the longest time.
func (v *view) next(all []answer) []answer {
	left := slices.DeleteFunc(slices.Clone(all), func(a answer) bool {
		e := v.read[a]
		return e.gone && e.state == v.state
	})
	slices.SortStableFunc(left, func(a, b answer) int {
		return cmp.Or(cmp.Compare(v.cost(a), v.cost(b)), v.read[a].at.Compare(v.read[b].at))
	})
	return left
}

// Sizes of answers, in bytes: of one that costs next to nothing, and of one that
// is not read for what it may show in passing.
const (
	smallAnswer = 16 << 10
	largeAnswer = 1 << 20
)

// size is the size that a had last, or a guess.
func (v *view) size(a answer) int {
	size := v.read[a].size
	switch {
	case size > 0:
		return size
	case a.list == changes():
		return 1 // mostly, but for the minutes after many have started
	case a.list == allApps():
		return maxAnswer
	}
	return 10 * smallAnswer
}

// cost puts answers of about the same size together.
func (v *view) cost(a answer) int { return bits.Len(uint(v.size(a) / smallAnswer)) }

func part(of float64, d time.Duration) time.Duration { return time.Duration(of * float64(d)) }
