package drain

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
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
	ours       []bool      // in which of them the sidecar registers the app
	appReady   *modelReady // nil: it cannot be asked
	locators   []bool      // which of them say whether they have ever found the instance
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
	wasReady bool         // at some time
	overAt   time.Time    // when it was ready because registries had taken too long
	portsAt  time.Time    // when the app's ports last changed
	blind    bool         // the look at the app has failed: what it has missed is not modelled
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
	m.cfg.ReadyWhenListed, m.cfg.ListedWithin = rng.IntN(3) == 0, pick(time.Second, 20*time.Second, 3*time.Minute)
	m.cfg.Reserve = pick(0, m.cfg.GracePeriod/5, m.cfg.GracePeriod/2)
	for i := range rng.IntN(3) {
		says := rng.IntN(2) == 0 // whether it has ever found the instance
		f := &fakeRegistry{lag: pick(0, time.Second, 5*time.Second), registered: true, changed: m.start.Add(-time.Hour)}
		f.onCall = func(op string) { m.registryCalled(i, op) }
		f.onAsked = func(gone bool, began time.Time, err error) { m.registryAsked(i, gone, began, err) }
		f.onDone = func(op string, began time.Time, err error) { m.registryCallDone(i, op, began, err) }
		m.registries = append(m.registries, f)
		m.locators = append(m.locators, says)
		var registry Registry = f
		if says {
			f.registered = rng.IntN(2) == 0
			registry = fakeLocator{f}
			if rng.IntN(2) == 0 {
				registry = fakeLister{fakeLocator{f}}
			}
		}
		ours := rng.IntN(3) == 0
		if ours {
			f.registered, m.locators[i] = rng.IntN(3) == 0, false
			registry = fakeRegistrar{f}
		}
		m.ours = append(m.ours, ours)
		m.cfg.Registries = append(m.cfg.Registries, NamedRegistry{
			Name: fmt.Sprintf("registry%d", i), Registry: registry, Register: ours, ServerCache: f.lag, ClientRefresh: pick(0, time.Second, 4*time.Second),
		})
	}
	m.asked, m.calls = make([]asked, len(m.registries)), make([]calls, len(m.registries))
	for i := range rng.IntN(3) {
		f := &fakeCounter{arrives: rng.IntN(2) == 0, knows: rng.IntN(2) == 0}
		if rng.IntN(2) == 0 {
			f.changes = make(chan struct{}, 1)
		}
		f.onRead = func(r Reading, err error) { m.counterRead(i, r, err) }
		m.counters = append(m.counters, f)
		name := fmt.Sprintf("counter%d", i)
		m.cfg.Counters = append(m.cfg.Counters, NamedCounter{Name: name, Counter: m.withProxy(name, f)})
	}
	if rng.IntN(2) == 0 {
		m.cfg.Notice = switchedNotice{m.newSwitch("the app's notice: written", true)}
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
	if m.app == nil || rng.IntN(2) == 0 {
		m.appReady = &modelReady{ready: rng.IntN(2) == 0, since: m.start.Add(-time.Hour)}
		m.cfg.AppReady = m.appReady.ask
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
	after(2 * late.takes()) // calls that outlive the process
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
