package drain

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// A machine's clock may be set at any time. Nothing here can set the clock of
// the machine that the tests run on; what a step of it looks like from inside
// the process can be had: times taken before it and times taken after it differ
// by the step on the wall clock, and not on the monotonic one. So these tests
// change the wall clock's part of every time that a Drainer holds, again and
// again, and see that nothing comes of it. Times that only a driver's goroutine
// holds are out of their reach: TestNothingLosesTheMonotonicClock is for them.
//
// Time passes by itself here: in a bubble of testing/synctest times have no
// monotonic reading. Nothing is held to be quick; steps of hours would end a
// drain at once, or never.

// wallSecond is a second in the first word of a time.Time that has a monotonic
// reading, as package time lays it out; stepTime checks that it still does.
const wallSecond = 1 << 30

// stepTime makes at look as if the clock had been set by the step since it was
// taken. Some of a drainer's times never change and are read without its lock:
// what is written here is only of this test's making, and no data race.
//
//go:norace
func stepTime(at *time.Time, step time.Duration) error {
	if !strings.Contains(at.String(), " m=") {
		return fmt.Errorf("a time without a monotonic reading: %v", at)
	}
	before := *at
	*(*uint64)(unsafe.Pointer(at)) += uint64(int64(step/time.Second) * wallSecond)
	if monotonic, wall := at.Sub(before), at.Round(0).Sub(before.Round(0)); monotonic != 0 || wall != step {
		return fmt.Errorf("package time keeps its readings in another way: a step of %v made %v, and %v on the monotonic clock", step, wall, monotonic)
	}
	return nil
}

var timeType = reflect.TypeFor[time.Time]()

// stepper steps every time that it comes upon. It follows what belongs to this
// package, and no plug-in.
type stepper struct {
	step  time.Duration
	seen  map[unsafe.Pointer]bool
	times int
	err   error
}

func (s *stepper) visit(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && !s.seen[v.UnsafePointer()] {
			s.seen[v.UnsafePointer()] = true
			s.visit(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			s.visit(v.Index(i))
		}
	case reflect.Map:
		if v.Type().Elem() == timeType {
			s.err = fmt.Errorf("times in a map cannot be stepped: %v", v.Type())
		}
	case reflect.Struct:
		if v.Type() == timeType {
			if at := (*time.Time)(v.Addr().UnsafePointer()); !at.IsZero() && s.err == nil {
				s.times++
				s.err = stepTime(at, s.step)
			}
			return
		}
		if v.Type().PkgPath() != "lastcall/drain" {
			return
		}
		for i := range v.NumField() {
			s.visit(v.Field(i))
		}
	default: // holds no time
	}
}

// stepClock steps the clock of d by hours, forward and back, every few
// milliseconds until ctx ends, and returns how many times it has stepped.
func stepClock(ctx context.Context, d *Drainer) (times int, err error) {
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		// Further each time, so that no two steps make up for each other.
		s := &stepper{step: time.Duration(2*i+1) * time.Hour, seen: map[unsafe.Pointer]bool{}}
		if i%2 > 0 {
			s.step = -s.step
		}
		d.mu.Lock()
		s.visit(reflect.ValueOf(d))
		d.mu.Unlock()
		times += s.times
		if s.err != nil {
			return times, s.err
		}
		select {
		case <-ctx.Done():
			return times, nil
		case <-tick.C:
		}
	}
}

func TestClockSteps(t *testing.T) {
	for name, test := range map[string]struct {
		grace   time.Duration
		play    func(t *testing.T, d *Drainer, c *fakeCounter)
		outcome Outcome
		least   time.Duration // that the drain takes
	}{
		"a drain that ends well": {
			time.Minute, func(_ *testing.T, d *Drainer, c *fakeCounter) {
				time.AfterFunc(300*time.Millisecond, func() { c.set(0) })
				d.Stop()
			}, OutcomeDrained, 400 * time.Millisecond,
		},
		"a drain that waits for clients": {
			time.Minute, func(_ *testing.T, d *Drainer, c *fakeCounter) {
				c.set(0)
				d.Stop()
			}, OutcomeDrained, 350 * time.Millisecond,
		},
		"a drain whose budget ends": {
			1200 * time.Millisecond, func(_ *testing.T, d *Drainer, _ *fakeCounter) { d.Stop() },
			OutcomeExpired, time.Second,
		},
		"a hook, and a signal that joins it": {
			time.Minute, func(t *testing.T, d *Drainer, c *fakeCounter) {
				c.set(0)
				if r, err := d.PreStop(t.Context()); err != nil || r.Outcome != OutcomeDrained {
					t.Errorf("the hook got %+v, %v", r, err)
				}
				d.Stop()
			}, OutcomeDrained, 350 * time.Millisecond,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := &fakeRegistry{registered: true}
			counter := &fakeCounter{inFlight: 1}
			app := startedApp()
			d := New(Config{
				GracePeriod: test.grace, Reserve: 200 * time.Millisecond, EndpointsWait: 200 * time.Millisecond,
				Quiet: 100 * time.Millisecond, Poll: 20 * time.Millisecond,
				Registries: []NamedRegistry{{Name: "registry", Registry: registry, ClientRefresh: 250 * time.Millisecond}},
				Counters:   []NamedCounter{{Name: "counter", Counter: counter}},
				App:        app,
			})
			ran := make(chan struct{})
			go func() {
				_ = d.Run(context.Background()) // work is left in one of the tests
				close(ran)
			}()
			ctx, end := context.WithCancel(context.Background())
			stepped := make(chan error)
			times := 0
			go func() {
				var err error
				times, err = stepClock(ctx, d)
				stepped <- err
			}()

			test.play(t, d, counter)
			report, err := d.PreStop(t.Context())
			took := time.Duration(report.Seconds * float64(time.Second))
			if err != nil || report.Outcome != test.outcome || took < test.least || took > test.grace/2 && test.outcome == OutcomeDrained || took > time.Hour {
				t.Errorf("%s after %v (%v), want %s after at least %v, and not for minutes", report.Outcome, took, err, test.outcome, test.least)
			}
			// The app outlives the drain: where the budget has ended, the end
			// of the grace period ends the wait for it.
			if test.outcome != OutcomeExpired {
				select {
				case <-ran:
					t.Error("the process was about to end, in the middle of the grace period, with the app alive")
				case <-time.After(200 * time.Millisecond):
				}
				app.set(false)
			}
			<-ran
			end()
			if err := <-stepped; err != nil || times < 100 {
				t.Errorf("%d times were stepped, want many; %v", times, err)
			}
			// On a busy machine the last moment of the grace period may go by.
			if n := registry.deregistered; n != 1 && (n != 0 || test.outcome == OutcomeDrained) {
				t.Errorf("deregistered %d times, want once", n)
			}
		})
	}
}

// Without its monotonic reading a time is compared by the wall clock. These
// are the ways to such a time.
func TestNothingLosesTheMonotonicClock(t *testing.T) {
	loses := map[string]bool{
		"UTC": true, "Local": true, "In": true, "AddDate": true, "Truncate": true, "Date": true,
		"Unix": true, "UnixMilli": true, "UnixMicro": true, "UnixNano": true, "Clock": true,
		"Parse": true, "ParseInLocation": true, "GobDecode": true, "UnmarshalJSON": true, "UnmarshalText": true,
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		checked++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && len(call.Args) == 1 {
				// Round is for durations here; of a time, Round(0) is how it loses its reading.
				s, isSelector := call.Fun.(*ast.SelectorExpr)
				zero, isLiteral := call.Args[0].(*ast.BasicLit)
				if isSelector && isLiteral && s.Sel.Name == "Round" && zero.Value == "0" {
					t.Errorf("%s: Round(0) gives a time that is compared by the wall clock", set.Position(s.Pos()))
				}
			}
			if s, ok := n.(*ast.SelectorExpr); ok && loses[s.Sel.Name] {
				t.Errorf("%s: %s gives a time that is compared by the wall clock", set.Position(s.Pos()), s.Sel.Name)
			}
			return true
		})
	}
	if checked < 5 {
		t.Fatalf("only %d files were looked at", checked)
	}
}
