package drain

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Readiness reports whether the pod takes new work; if not, why says what it
// waits for, or that it drains.
func (d *Drainer) Readiness() (ready bool, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.readyLocked():
		return true, ""
	case d.run != nil || d.stopping:
		return false, "draining"
	}
	return false, d.listingWaitLocked(time.Now())
}

// readyLocked reports whether the pod takes new work. One that was not ready when
// its drain began does not become so in it.
func (d *Drainer) readyLocked() bool {
	return len(d.unlistedLocked()) == 0 && (d.run == nil && !d.stopping || d.cfg.StayReady)
}

// unlistedLocked returns the registrations that readiness waits for.
func (d *Drainer) unlistedLocked() (all []*registration) {
	for _, r := range d.registrations {
		if r.listing.holds() {
			all = append(all, r)
		}
	}
	return all
}

// listingWaitLocked says which registries readiness waits for, and for how long;
// empty if for none.
func (d *Drainer) listingWaitLocked(now time.Time) string {
	var waits []string
	for _, r := range d.unlistedLocked() {
		why := r.listing.why
		if why == "" {
			why = "it was not asked yet"
		}
		waits = append(waits, fmt.Sprintf("%s to list the pod (%s)", r.Name, why))
	}
	if len(waits) == 0 {
		return ""
	}
	left := max(0, d.listingEndLocked().Sub(now)).Round(time.Second)
	atMost := fmt.Sprintf("for %v more at most", left)
	if d.cfg.App != nil && d.app.startedAt.IsZero() {
		atMost += fmt.Sprintf(", or %v from the app's start", d.cfg.ListedWithin)
	}
	return fmt.Sprintf("waiting for %s; %s", strings.Join(waits, ", and for "), atMost)
}

// listingEndLocked is when readiness waits no longer: the time runs from the
// app's start, where that was seen.
func (d *Drainer) listingEndLocked() time.Time {
	return later(d.began, d.app.startedAt).Add(d.cfg.ListedWithin)
}

// awaitListed ends the wait for registries that have not been seen to list the pod
// in time. A drain holds it up: a pod that leaves does not become ready.
func (d *Drainer) awaitListed() {
	for d.ctx.Err() == nil {
		d.mu.Lock()
		now := time.Now()
		waiting, left := d.unlistedLocked(), d.listingEndLocked().Sub(now)
		switch {
		case len(waiting) == 0:
			d.mu.Unlock()
			return
		case d.run != nil || d.stopping:
			left = forever
		case left <= 0:
			for _, r := range waiting {
				d.giveUpListingLocked(r, now)
			}
		}
		d.mu.Unlock()
		pause(d.ctx, left, d.listingChanged)
	}
}

// giveUpListingLocked has readiness wait no longer for one registry.
func (d *Drainer) giveUpListingLocked(r *registration, now time.Time) {
	r.listing.gaveUp = true
	r.listing.askAt = now.Add(r.listing.pause(now))
	notify(r.worker.changed)
	text := d.lateText(r)
	slog.Warn("readiness: " + text)
	d.journal.emitLocked(EventNotListed, "%s", text)
}

func (d *Drainer) lateText(r *registration) string {
	why := r.listing.why
	if why == "" {
		why = "it has not answered"
	}
	return fmt.Sprintf("%s was not seen to list the pod within %v, and the pod is ready all the same: clients may not find it: %s", r.Name, d.cfg.ListedWithin, why)
}

// listedLocked is called when a registry was seen to list the pod.
func (d *Drainer) listedLocked() {
	if len(d.unlistedLocked()) == 0 {
		notify(d.listingChanged)
		slog.Info("readiness: every registry has been seen to list the pod", "seconds", seconds(time.Since(d.began)))
	}
}

// notListedWarningsLocked is one sentence for each registry that was waited for in
// vain, and has not been seen to list the pod since.
func (d *Drainer) notListedWarningsLocked() (warnings []string) {
	for _, r := range d.registrations {
		if r.listing.open() && r.listing.gaveUp {
			warnings = append(warnings, d.lateText(r))
		}
	}
	return warnings
}
