package drain

import (
	"context"
	"reflect"
	"testing/synctest"
	"time"
)

type asked struct {
	goneSince time.Time // since when every answer said so
	until     time.Time // when one last said that it is listed
	before    time.Time // goneSince until then
}

type lastReading struct {
	Reading
	err error
	any bool
}

// registryCalled holds what must be true of each call.
func (m *model) registryCalled(i int, op string) {
	m.log("registry%d: %s", i, op)
	switch op {
	case "withdraw":
		// With a Restore that overtakes it, it may be ready by now.
		if m.d.Ready() && !m.cfg.StayReady && !m.served() {
			m.fail("registry%d was told to withdraw while the pod was ready", i)
		}
	case "deregister":
		m.mayDeregister(i)
	case "register":
		m.mayRegister(i)
	}
}

func (m *model) mayDeregister(i int) {
	appListens := false
	if m.app != nil {
		m.app.mu.Lock()
		appListens = m.app.listening() && time.Since(m.app.since) > 0
		m.app.mu.Unlock()
	}
	m.d.mu.Lock()
	l := m.d.run
	var graceEnd time.Time
	if l != nil {
		graceEnd = l.graceEnd
	}
	m.d.mu.Unlock()
	m.mu.Lock()
	signalled := !m.signalled.IsZero()
	m.mu.Unlock()
	switch {
	case !signalled:
		m.fail("registry%d: deregistered, and nobody has told the sidecar to stop", i)
	case l == nil:
		m.fail("registry%d: deregistered while serving", i)
	case !time.Now().Before(graceEnd.Add(-m.cfg.leaveEarly())):
	case m.app == nil:
		m.fail("registry%d: deregistered before the end of the grace period, and the app may live", i)
	case appListens:
		m.fail("registry%d: deregistered while the app listens", i)
	}
}

func (m *model) counterRead(i int, r Reading, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := &m.readings[i]
	arrived := err == nil && r.HasArrived && last.any && last.err == nil && r.Arrived != last.Arrived
	*last = lastReading{r, err, true}
	var sum int64
	for _, l := range m.readings {
		sum += l.InFlight
	}
	if err != nil || arrived || sum > m.cfg.Threshold {
		m.lastBusy = time.Now()
	}
	if arrived {
		m.lastCame = time.Now()
	}
}

func (m *model) served() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mayServe
}

// returned holds what must be true when a hook has its answer.
func (m *model) returned(r Report) {
	m.mu.Lock()
	m.reports = append(m.reports, r)
	fresh := time.Since(r.Began) == time.Duration(r.Seconds*1000)*time.Millisecond
	lastBusy, asked := m.lastBusy, append([]asked(nil), m.asked...)
	readings := append([]lastReading(nil), m.readings...)
	lastCame, blind := m.lastCame, m.blind
	m.mu.Unlock()
	if len(r.Phases) == 0 || len(r.Timeline) == 0 {
		m.fail("a report without phases or timeline: %+v", r)
	}
	if r.Outcome != OutcomeDrained && r.Outcome != OutcomeNotFound || !fresh {
		return // the same report once more: what it says was true then
	}
	now := time.Now()
	m.foundOrNot(r)
	for i, l := range readings {
		if l.err != nil || !l.any {
			m.fail("drained while counter%d is unreadable: %v", i, l.err)
		}
	}
	closed := len(readings) > 0
	for _, l := range readings {
		closed = closed && l.HasOpen && l.Open == 0 && l.HasArrived
	}
	if closed {
		lastBusy = lastCame // for nobody there is no quiet time
	}
	if quiet := now.Sub(lastBusy); quiet < m.cfg.Quiet && !lastBusy.IsZero() {
		m.fail("drained %v after a counter showed work, want %v of quiet", quiet, m.cfg.Quiet)
	}
	if now.Sub(r.Began) < m.cfg.EndpointsWait {
		m.fail("drained before the endpoints' wait was over")
	}
	if m.app != nil && len(m.app.others) > 0 && !blind {
		m.app.mu.Lock()
		for _, port := range m.app.Ports() {
			if !m.app.ever[port] {
				m.fail("drained, and nobody has ever listened on port %d, while the pod listens on others", port)
			}
		}
		m.app.mu.Unlock()
	}
	for i, a := range asked {
		if m.cfg.Registries[i].ClientRefresh > now.Sub(r.Began) {
			m.fail("drained before registry%d's clients have had the time to forget the pod", i)
		}
		if r.Registries[i].State == "not found" {
			continue
		}
		if a.until.Equal(now) && !a.before.IsZero() {
			a.goneSince = a.before // this answer and the drain's end are one moment
		}
		if refresh := m.cfg.Registries[i].ClientRefresh; a.goneSince.IsZero() || now.Sub(a.goneSince) < refresh {
			m.fail("drained while registry%d's clients may remember the pod (gone since %v)", i, now.Sub(a.goneSince))
		}
	}
}

// foundOrNot holds that a drain has ended as drained only if every registry has
// held the instance, where it can say so.
func (m *model) foundOrNot(r Report) {
	said := 0
	for i, f := range m.registries {
		notFound := r.Registries[i].State == "not found"
		if notFound {
			said++
		}
		f.mu.Lock()
		found := f.located && time.Since(f.locatedAt) > 2*callLimit // a call that has just found it may not have returned
		f.mu.Unlock()
		switch {
		case notFound && (found || !m.locators[i]):
			m.fail("registry%d has held the instance, and the report says that it was not found", i)
		case !notFound && !m.everFound(i):
			m.fail("registry%d has never held the instance, and the report says that it is %q", i, r.Registries[i].State)
		}
	}
	if (r.Outcome == OutcomeNotFound) != (said > 0) {
		m.fail("%s, and %d registries have not found the instance", r.Outcome, said)
	}
}

// everFound reports whether a registry has held the instance, or cannot say.
func (m *model) everFound(i int) bool {
	return !m.locators[i] || fakeLocator{m.registries[i]}.Located()
}

// unfoundIsNotGone holds that an instance that was never found is not said to be
// withdrawn, gone or deregistered.
func (m *model) unfoundIsNotGone(s Status) {
	for i, r := range s.Registries {
		if m.everFound(i) {
			continue
		}
		switch r.State {
		case "in service", "restoring", "withdrawing", "deregistering", "not found", "given up":
		default:
			m.fail("registry%d has never held the instance, and is %q", i, r.State)
		}
		if r.Withdrawn != nil || r.Gone != nil {
			m.fail("registry%d has never held the instance, and the drain says when it left", i)
		}
	}
}

// check holds what must be true at any time.
func (m *model) check() {
	synctest.Wait()
	ctx, cancel := context.WithCancel(m.t.Context())
	cancel() // counters that hang must not hold the check up
	s := m.d.Status(ctx)
	m.mu.Lock()
	if overdue := !m.hookAt.IsZero() && time.Since(m.hookAt) >= m.cfg.GracePeriod+signalMargin; overdue && m.app != nil {
		m.mayServe = true // a pod that is deleted would have been told so
	}
	mayServe, signalled, byHand := m.mayServe, !m.signalled.IsZero(), m.byHand
	m.mu.Unlock()
	if s.Phase == Serving && byHand {
		m.fail("serving, and somebody has asked for a drain and not taken it back")
	}
	if s.Ready && !m.cfg.StayReady && (s.Phase != Serving || signalled) {
		m.fail("ready in phase %s", s.Phase)
	}
	m.readyWhenListed(s, signalled)
	if s.Phase == Serving && s.LastDrain != nil && !mayServe {
		m.fail("serving again, and nobody has taken the drain back")
	}
	m.ownCalls(s)
	m.unfoundIsNotGone(s)
	m.toldToLeave(s)
}

// comesBack holds that a pod which is not deleted is in service again within a
// bounded time after its app listens again, unless somebody has asked for the
// drain.
func (m *model) comesBack() {
	m.mu.Lock()
	stays := !m.signalled.IsZero() || m.byHand || m.hookAt.IsZero()
	m.mu.Unlock()
	if stays || m.app == nil || m.over() {
		return
	}
	m.app.mu.Lock()
	m.app.mode = healthy
	m.app.mu.Unlock()
	m.portsChange()
	m.app.set(true)
	m.log("the app listens, for good")
	after(m.cfg.GracePeriod + signalMargin + lookWhileServing)
	synctest.Wait()
	if s := m.d.Status(m.t.Context()); s.Phase != Serving {
		m.fail("%s, although the app listens, and nobody has deleted the pod: %+v", s.Phase, s.Timeline)
	}
}

// backInService holds that a drain that was taken back leaves nothing behind.
func (m *model) backInService() {
	if m.over() || m.d.Status(m.t.Context()).Phase != Serving {
		return
	}
	for _, f := range m.registries {
		f.mu.Lock()
		f.mode = healthy
		f.mu.Unlock()
	}
	for _, w := range m.switches {
		w.turn(healthy)
	}
	if m.appReady != nil {
		m.appReady.set(func() { m.appReady.mode = healthy })
	}
	if m.app != nil {
		m.app.mu.Lock()
		m.app.mode = healthy
		m.app.mu.Unlock()
	}
	after(2 * time.Minute)
	synctest.Wait()
	for i, f := range m.registries {
		f.mu.Lock()
		if f.override {
			m.fail("registry%d still holds the withdrawal two minutes after the drain was taken back", i)
		}
		f.mu.Unlock()
	}
	m.registeredAgain()
	for _, w := range m.switches {
		if on, _, _ := w.is(); on && w.undone {
			m.fail("%s still holds two minutes after the drain was taken back", w.told)
		}
	}
}

// sameReports holds that one drain has one report.
func (m *model) sameReports() {
	for i, a := range m.reports {
		for _, b := range m.reports[:i] {
			// In the bubble, a drain can be taken back and begun again at one moment;
			// one that has ended too, when it took no time.
			another := a.Outcome == OutcomeTakenBack || b.Outcome == OutcomeTakenBack || a.Seconds == 0 || b.Seconds == 0
			if a.Began.Equal(b.Began) && !another && !reflect.DeepEqual(a, b) {
				m.fail("one drain has two reports:\n%+v\n%+v", a, b)
			}
		}
	}
}
