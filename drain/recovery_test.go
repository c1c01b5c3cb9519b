package drain

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// finder is a registry that holds an earlier pod's registration, with its
// withdrawal, until the app has started.
type finder struct {
	fakeRegistry
	appRegisters time.Time
	cleared      time.Time
	finds        int
}

func (f *finder) Find(context.Context) (string, error) {
	f.finds++
	if time.Now().Before(f.appRegisters) {
		return "an earlier pod's, OUT_OF_SERVICE", nil
	}
	if f.cleared.IsZero() {
		f.cleared = time.Now()
	}
	return "the pod's own", nil
}

func TestALeftoverIsClearedWhenTheAppHasRegistered(t *testing.T) {
	for name, test := range map[string]struct {
		listensAfter   time.Duration // its start
		registersAfter time.Duration // it listens
		change         func(*Config, *pod)
		within         time.Duration // after that the leftover is gone
	}{
		"at once":                  {0, time.Second, nil, 2 * time.Second},
		"after a slow start":       {70 * time.Second, time.Second, nil, 2 * time.Second},
		"after a very slow start":  {20 * time.Minute, time.Second, nil, 2 * time.Second},
		"long after it listens":    {0, 70 * time.Second, nil, 2 * time.Minute},
		"its port is not known":    {0, 70 * time.Second, func(c *Config, _ *pod) { c.App = nil }, 2 * time.Minute},
		"its port cannot be asked": {0, 70 * time.Second, func(_ *Config, p *pod) { p.app.mode = failing }, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			f := &finder{}
			inPod(t, func(c *Config, p *pod) {
				f.appRegisters = time.Now().Add(test.listensAfter + test.registersAfter)
				c.Registries[0].Registry = f
				if test.listensAfter > 0 {
					p.app.set(false)
				}
				if test.change != nil {
					test.change(c, p)
				}
			}, func(t *testing.T, p *pod) {
				after(test.listensAfter)
				p.app.set(true)
				after(time.Hour)
				if f.cleared.IsZero() || f.cleared.After(f.appRegisters.Add(test.within)) {
					t.Errorf("cleared at %v, and the app registered at %v", f.cleared, f.appRegisters)
				}
				if f.finds > 20 {
					t.Errorf("%d look-ups in an hour", f.finds)
				}
			})
		})
	}
}

// What a withdrawal leaves behind although it was taken back is looked for often
// too, whether clients are told of the instance meanwhile or not.
func TestALeftoverIsClearedAfterADrainThatWasTakenBack(t *testing.T) {
	for _, listed := range []bool{true, false} {
		t.Run(fmt.Sprintf("listed %v", listed), func(t *testing.T) {
			f := &finder{}
			inPod(t, func(c *Config, _ *pod) {
				c.Registries[0].Registry = f
				c.Registries[0].ServerCache = 30 * time.Second
			}, func(t *testing.T, p *pod) {
				after(time.Hour) // it was found long ago
				f.set(func() { f.registered = listed })
				p.hook()
				f.appRegisters = time.Now().Add(500 * time.Millisecond)
				f.cleared, f.finds = time.Time{}, 0
				if err := p.TakeBack(t.Context()); err != nil {
					t.Fatal(err)
				}
				after(time.Hour)
				if f.cleared.IsZero() || f.cleared.After(f.appRegisters.Add(time.Second)) {
					t.Errorf("cleared at %v, and the app registered at %v", f.cleared, f.appRegisters)
				}
				if f.finds > 20 {
					t.Errorf("%d look-ups in an hour", f.finds)
				}
			})
		})
	}
}
