package drain

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	modelSeed = flag.Uint64("model.seed", 0, "replay the one sequence of events of this seed")
	modelRuns = flag.Int("model.runs", 50, "how many sequences of events to try")
)

// TestModel throws random sequences of events at a Drainer and holds it to its
// invariants. A failure names the seed that replays it:
//
//	go test ./drain -run TestModel -model.seed SEED -v
//
// `make test` tries 5000 more of them without the race detector, which now and
// then breaks down on so much of synctest (golang/go#78156), and is ten times
// as slow.
func TestModel(t *testing.T) {
	if *modelSeed != 0 {
		modelRun(t, *modelSeed)
		return
	}
	runs := *modelRuns
	first := rand.Uint64()
	t.Logf("seeds %d to %d", first, first+uint64(runs)-1)
	seed := first
	defer func() { // a failure within the bubble ends the loop
		if t.Failed() {
			t.Logf("replay with: go test ./drain -run TestModel -v -model.seed %d", seed)
		}
	}()
	for ; seed < first+uint64(runs); seed++ {
		hung := time.AfterFunc(20*time.Second, func() { panic(fmt.Sprintf("hangs: -model.seed %d", seed)) })
		modelRun(t, seed)
		hung.Stop()
	}
}

func modelRun(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, seed)
		m.play()
	})
}

// model is one Drainer in a world that misbehaves.
type model struct {
	t   *testing.T
	rng *rand.Rand
	cfg Config
	d   *Drainer

	registries []*fakeRegistry
	counters   []*fakeCounter
	switches   []modelSwitch // proxies and the notice
	app        *fakeApp

	callers sync.WaitGroup
	ran     chan error

	mu        sync.Mutex
	trace     []string
	start     time.Time
	asked     []asked       // of each registry
	calls     []calls       // to each registry
	readings  []lastReading // of each counter
	lastBusy  time.Time     // when a reading last showed work, an arrival or an error
	mayServe  bool          // something that may take a drain back has happened since it began
	signalled time.Time
	reports   []Report

	lastCame time.Time    // when a reading last showed an arrival
	byHand   bool         // somebody has asked for the drain by a call, and not taken it back
	hookAt   time.Time    // the last hook's call
	atHook   map[int]bool // the ports that were listened on then
	blind    bool         // the look at the app has failed: what it has missed is not modelled
}

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

func newModel(t *testing.T, seed uint64) *model {
	rng := rand.New(rand.NewPCG(seed, 0))
	pick := func(ds ...time.Duration) time.Duration { return ds[rng.IntN(len(ds))] }
	m := &model{t: t, rng: rng, start: time.Now(), ran: make(chan error, 1)}
	m.cfg = Config{
		GracePeriod:   pick(time.Second, 10*time.Second, 30*time.Second, 2*time.Minute),
		EndpointsWait: pick(0, time.Second, 3*time.Second),
		Quiet:         pick(0, 200*time.Millisecond, time.Second),
		Poll:          pick(10*time.Millisecond, 100*time.Millisecond, time.Second),
		Threshold:     int64(rng.IntN(2)),
		StayReady:     rng.IntN(10) == 0,
	}
	m.cfg.Reserve = pick(0, m.cfg.GracePeriod/5, m.cfg.GracePeriod/2)
	for i := range rng.IntN(3) {
		f := &fakeRegistry{lag: pick(0, time.Second, 5*time.Second), registered: true, changed: m.start.Add(-time.Hour)}
		f.onCall = func(op string) { m.registryCalled(i, op) }
		f.onAsked = func(gone bool, began time.Time, err error) { m.registryAsked(i, gone, began, err) }
		f.onDone = func(op string, began time.Time, err error) { m.registryCallDone(i, op, began, err) }
		m.registries = append(m.registries, f)
		m.cfg.Registries = append(m.cfg.Registries, NamedRegistry{
			Name: fmt.Sprintf("registry%d", i), Registry: f, ServerCache: f.lag, ClientRefresh: pick(0, time.Second, 4*time.Second),
		})
	}
	m.asked, m.calls = make([]asked, len(m.registries)), make([]calls, len(m.registries))
	for i := range rng.IntN(3) {
		f := &fakeCounter{arrives: rng.IntN(2) == 0, knows: rng.IntN(2) == 0}
		if rng.IntN(2) == 0 {
			f.wake = make(chan struct{}, 1)
		}
		f.onRead = func(r Reading, err error) { m.counterRead(i, r, err) }
		m.counters = append(m.counters, f)
		name := fmt.Sprintf("counter%d", i)
		m.cfg.Counters = append(m.cfg.Counters, NamedCounter{Name: name, Counter: m.withProxy(name, f)})
	}
	if rng.IntN(2) == 0 {
		m.cfg.Notice = switchedNotice{m.newSwitch("the app's notice: posted", true)}
	}
	m.readings = make([]lastReading, len(m.counters))
	if rng.IntN(4) > 0 {
		m.app = startedApp([][]int{{8080}, {8080, 8081}}[rng.IntN(2)]...)
		if rng.IntN(4) == 0 {
			m.app = &fakeApp{names: m.app.names}
		}
		if rng.IntN(3) == 0 {
			m.app.others = []int{9090}
		}
		m.cfg.App = m.app
	}
	m.d = New(m.cfg)
	return m
}

func (m *model) log(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trace = append(m.trace, fmt.Sprintf("%8v  ", time.Since(m.start).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (m *model) fail(format string, args ...any) {
	m.t.Errorf(format, args...)
	if *modelSeed != 0 {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, line := range m.trace {
			m.t.Log(line)
		}
		m.t.Logf("%+v", m.cfg)
	}
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
	m.d.mu.Unlock()
	m.mu.Lock()
	signalled := !m.signalled.IsZero()
	m.mu.Unlock()
	switch {
	case !signalled:
		m.fail("registry%d: deregistered, and nobody has told the sidecar to stop", i)
	case l == nil:
		m.fail("registry%d: deregistered while serving", i)
	case time.Since(l.began) >= m.cfg.GracePeriod-m.cfg.leaveEarly():
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

// play runs the events, and then lets the pod be deleted.
func (m *model) play() {
	go func() { m.ran <- m.d.Run(context.Background()) }()
	if m.rng.IntN(5) > 0 {
		synctest.Wait() // else the first events come before start-up has finished
	}
	for range 5 + m.rng.IntN(30) {
		m.event()
		m.check()
		switch m.rng.IntN(4) {
		case 0: // at once
		case 1:
			after(time.Duration(m.rng.IntN(50)) * time.Millisecond)
		case 2:
			after(time.Duration(m.rng.IntN(2000)) * time.Millisecond)
		case 3:
			after(time.Duration(m.rng.IntN(int(m.cfg.GracePeriod))))
		}
		m.check()
		if m.over() {
			break
		}
	}
	m.comesBack()
	m.backInService()
	m.signal(false)
	if m.app != nil && m.rng.IntN(2) == 0 {
		after(time.Duration(m.rng.IntN(3000)) * time.Millisecond)
		m.app.set(false)
	}
	m.mu.Lock()
	left := m.cfg.GracePeriod - time.Since(m.signalled)
	m.mu.Unlock()
	synctest.Wait()
	if m.over() {
		left = time.Hour // it has ended already; not both at once
	}
	select {
	case err := <-m.ran:
		m.log("process ended: %v", err)
	case <-time.After(left + time.Millisecond):
		m.fail("the process outlived the grace period of %v", m.cfg.GracePeriod)
		m.d.Interrupt()
		<-m.ran
	}
	m.callers.Wait()
	m.sameReports()
	after(2 * slowFor) // calls that outlive the process
}

func (m *model) over() bool {
	select {
	case err := <-m.ran:
		m.ran <- err
		return true
	default:
		return false
	}
}

func (m *model) event() {
	switch n := m.rng.IntN(100); {
	case n < 14:
		m.preStop()
	case n < 17:
		m.log("begin by a call")
		m.begun()
		m.mu.Lock()
		m.byHand = true
		m.mu.Unlock()
		m.d.Begin(CauseCall)
	case n < 23:
		m.log("taken back by a call")
		m.mu.Lock()
		m.mayServe, m.byHand = true, false
		m.mu.Unlock()
		ctx, cancel := context.WithTimeout(m.t.Context(), time.Duration(m.rng.IntN(3000))*time.Millisecond)
		err := m.d.TakeBack(ctx)
		cancel()
		m.log("take back: %v", err)
	case n < 26:
		m.log("postStart")
		m.mu.Lock()
		m.mayServe = true
		m.mu.Unlock()
		m.d.PostStart()
	case n < 29:
		m.signal(m.rng.IntN(4) == 0)
	case n < 50 && len(m.counters) > 0:
		c := m.counters[m.rng.IntN(len(m.counters))]
		v := int64(m.rng.IntN(6)) * int64(m.rng.IntN(2))
		m.log("a counter goes to %d", v)
		c.set(v)
		c.mu.Lock()
		if c.open = v; m.rng.IntN(3) == 0 {
			c.open++ // an idle one
		}
		c.mu.Unlock()
	case n < 60 && len(m.counters) > 0:
		c := m.counters[m.rng.IntN(len(m.counters))]
		md := []mode{healthy, healthy, healthy, failing, hanging, panics}[m.rng.IntN(6)]
		m.log("a counter turns to mode %d", md)
		c.mu.Lock()
		c.mode = md
		c.mu.Unlock()
	case n < 75 && len(m.registries) > 0:
		f := m.registries[m.rng.IntN(len(m.registries))]
		md := []mode{healthy, healthy, healthy, failing, hanging, lying, panics, halfway, slow}[m.rng.IntN(9)]
		m.log("a registry turns to mode %d", md)
		f.mu.Lock()
		f.mode = md
		f.mu.Unlock()
	case n < 82 && len(m.registries) > 0:
		m.log("a registry forgets the withdrawal: the app registered again")
		f := m.registries[m.rng.IntN(len(m.registries))]
		f.set(func() { f.registered, f.override = true, false })
	case n < 87 && len(m.switches) > 0:
		w := m.switches[m.rng.IntN(len(m.switches))]
		md := []mode{healthy, healthy, failing, hanging, panics, halfway, slow}[m.rng.IntN(7)]
		m.log("%s turns to mode %d", w.told, md)
		w.turn(md)
	case n < 97 && m.app != nil:
		m.appEvent()
	case m.app != nil:
		md := []mode{healthy, failing}[m.rng.IntN(2)]
		m.log("the look at the app turns to mode %d", md)
		m.mu.Lock()
		m.blind = m.blind || md == failing
		m.mu.Unlock()
		m.app.mu.Lock()
		m.app.mode = md
		m.app.mu.Unlock()
	}
}

// appEvent is something that happens to one of the app's ports, or all.
func (m *model) appEvent() {
	ports := m.app.Ports()
	port := ports[m.rng.IntN(len(ports))]
	m.app.mu.Lock()
	listeners := len(m.app.listeners[port])
	m.app.mu.Unlock()
	switch m.rng.IntN(6) {
	case 0, 1:
		m.log("the app listens")
		for _, p := range ports {
			m.app.mu.Lock()
			listens := len(m.app.listeners[p]) > 0
			m.app.mu.Unlock()
			if !listens {
				m.started(p)
			}
		}
		m.app.set(true)
	case 2:
		m.log("the app does not listen")
		m.app.set(false)
	case 3:
		m.log("port %d does not listen", port)
		m.app.close(port)
	case 4:
		m.log("port %d is started anew, with no gap", port)
		m.started(port)
		m.app.start(port)
	case 5:
		if listeners == 0 {
			return
		}
		m.log("port %d is handed over", port)
		m.app.join(port)
		m.app.mu.Lock()
		unseen := m.app.mode == failing
		m.app.mu.Unlock()
		if !m.seen() || unseen {
			m.started(port) // nobody has seen both listen
		}
		m.app.leave(port)
	}
}

// seen lets the time of a look go by, and reports whether there was one.
func (m *model) seen() bool {
	m.app.mu.Lock()
	looks := m.app.looks
	m.app.mu.Unlock()
	after(lookWhileServing)
	m.app.mu.Lock()
	defer m.app.mu.Unlock()
	return m.app.looks > looks
}

// started is told that a port is started: where it was listened on when the last
// hook was called, that shows that the pod is not being deleted.
func (m *model) started(port int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mayServe = m.mayServe || m.atHook[port] || m.blind
}

func (m *model) begun() {
	m.d.mu.Lock()
	serving := m.d.run == nil
	m.d.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mayServe = m.mayServe && !serving
}

func (m *model) signal(interrupt bool) {
	m.log("signal, interrupt %v", interrupt)
	m.mu.Lock()
	if m.signalled.IsZero() {
		m.signalled = time.Now()
	}
	m.mu.Unlock()
	if interrupt {
		m.d.Interrupt()
	} else {
		m.d.Stop()
	}
}

// preStop calls the hook as a kubelet does; one in four hangs up.
func (m *model) preStop() {
	ctx, hangUp := context.WithCancel(m.t.Context())
	if m.rng.IntN(4) == 0 {
		ctx, hangUp = context.WithTimeout(m.t.Context(), time.Duration(m.rng.IntN(3000))*time.Millisecond)
	}
	m.log("preStop")
	m.begun()
	called := time.Now()
	atHook := map[int]bool{}
	if m.app != nil {
		m.app.mu.Lock()
		for port := range m.app.listeners {
			atHook[port] = true
		}
		m.app.mu.Unlock()
	}
	m.mu.Lock()
	m.hookAt, m.atHook = called, atHook
	m.mu.Unlock()
	m.callers.Go(func() {
		defer hangUp()
		report, err := m.d.PreStop(ctx)
		took := time.Since(called)
		m.log("preStop returns %s after %v (%v)", report.Outcome, took, err)
		if took > m.cfg.Budget() {
			m.fail("preStop took %v, which is more than the budget of %v", took, m.cfg.Budget())
		}
		if err == nil {
			m.returned(report)
		}
	})
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
	if r.Outcome != OutcomeDrained || !fresh {
		return // the same report once more: what it says was true then
	}
	now := time.Now()
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
		if a.until.Equal(now) {
			a.goneSince = a.before // this answer and the drain's end are one moment
		}
		if refresh := m.cfg.Registries[i].ClientRefresh; a.goneSince.IsZero() || now.Sub(a.goneSince) < refresh {
			m.fail("drained while registry%d's clients may remember the pod (gone since %v)", i, now.Sub(a.goneSince))
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
	if s.Ready != (s.Phase == Serving && !signalled || m.cfg.StayReady) {
		m.fail("ready is %v in phase %s", s.Ready, s.Phase)
	}
	if s.Phase == Serving && s.LastDrain != nil && !mayServe {
		m.fail("serving again, and nobody has taken the drain back")
	}
	m.ownCalls(s)
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
			// In the bubble, a drain can be taken back and begun anew at one moment;
			// one that has ended too, when it took no time.
			another := a.Outcome == OutcomeTakenBack || b.Outcome == OutcomeTakenBack || a.Seconds == 0 || b.Seconds == 0
			if a.Began.Equal(b.Began) && !another && !reflect.DeepEqual(a, b) {
				m.fail("one drain has two reports:\n%+v\n%+v", a, b)
			}
		}
	}
}
