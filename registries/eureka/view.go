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

// view is what one peer has been seen to hold of the pod and to answer its
// clients, from one Withdraw or Restore to the next. It decides when the peer
// is queried again.
type view struct {
	calls sync.Mutex // held during a call; guards what follows
	steps map[name]*progress
	// lookedUp is set once unknown names have been looked for. verified is set
	// once a Eureka server has been found at the URL.
	lookedUp, verified bool

	refresh time.Duration // how long clients use their copies
	since   time.Time     // time of the last change that was made, or of the first query
	// held is what the peer held at heldAt, without the names that it does not
	// know.
	held   map[name]seen
	heldAt time.Time
	took   time.Duration // how long the server took for that query
	state  string        // held as text, to distinguish current evidence from older evidence

	read map[answer]evidence
	// turnedAt is when the first answer was seen to be renewed since the last
	// change. goneSince is when all had been. Both are zero before.
	turnedAt, goneSince time.Time
	thorough            bool // other answers were read although one listed the pod
	outdated            bool // and they showed that the server keeps that one for too long
	askAt               time.Time
	gone                bool // the result until askAt
}

// answer is one of the answers that clients read.
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

// Intervals between two queries, as fractions of the time that clients take to
// forget the pod. A drain is longer by at most that fraction than it would be
// if the server were queried all the time.
const (
	waitPart  = 0.044 // until the answers are renewed
	ownPart   = 0.4   // between two queries of the server's own entry meanwhile
	watchPart = 0.33  // while clients use the copies that they have
)

// lastLook is how long before clients have forgotten the pod the peer is
// queried on each call of Withdrawn. The result that ends the wait is never
// older than that.
const lastLook = 1100 * time.Millisecond

// view returns p's view, and creates it if there is none.
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

// changed is called after a write: what was seen before is out of date, and the
// answers to clients will soon be.
func (v *view) changed() {
	v.since = time.Now()
	v.held, v.heldAt, v.state = nil, time.Time{}, ""
	v.askAt, v.turnedAt, v.goneSince, v.thorough = time.Time{}, time.Time{}, time.Time{}, false
	v.outdated = false
}

// holds records what was read of n between two queries.
func (v *view) holds(n name, i seen) {
	held := maps.Clone(v.held)
	if held == nil {
		held = map[name]seen{}
	}
	held[n] = i
	v.setHeld(held, time.Now())
}

// stands reports whether the last result is still valid (ok), and returns it.
func (v *view) stands() (gone, ok bool) { return v.gone, time.Now().Before(v.askAt) }

// plan records the result of a query and sets when the next one is due.
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
		v.askAt = now.Add(pace.LessUpTo(pause, pause/10)) // the savings add up over many queries
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

// watchPause divides the time that is left into equal pauses, none of them
// longer than longest, and returns the first. A random part of up to a fifth is
// subtracted, unless that would make one more pause necessary.
func watchPause(left, longest time.Duration) time.Duration {
	pauses := (left + longest - 1) / longest
	pause := left / pauses
	least := max(left-(pauses-1)*longest, pause-pause/5)
	return pace.LessUpTo(pause, pause-least)
}

// ownPause returns the minimum interval between two queries of what the server
// holds, while its answers to clients are awaited.
func (v *view) ownPause() time.Duration {
	return max(part(ownPart, time.Since(v.since)+v.refresh), 4*v.took) // a slow server: its answers come first
}

// next returns the answers that have not yet shown that the pod is gone in its
// present state at the server. The cheapest come first; among answers of the
// same cost, the one that has not been read for the longest time.
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

// Sizes of answers in bytes. A small one costs next to nothing. A large one is
// not read only to see whether another answer is outdated.
const (
	smallAnswer = 16 << 10
	largeAnswer = 1 << 20
)

// size returns the last size of a, or a guess.
func (v *view) size(a answer) int {
	size := v.read[a].size
	switch {
	case size > 0:
		return size
	case a.list == changes():
		return 1 // usually, except in the minutes after many instances have started
	case a.list == allApps():
		return maxAnswer
	}
	return 10 * smallAnswer
}

// cost returns the same number for answers of about the same size.
func (v *view) cost(a answer) int { return bits.Len(uint(v.size(a) / smallAnswer)) }

func part(of float64, d time.Duration) time.Duration { return time.Duration(of * float64(d)) }
