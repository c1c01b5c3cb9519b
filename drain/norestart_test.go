package drain

import (
	"testing"
	"time"
)

// What looks like a restart and is none, or may be none.
func TestWhatIsNoRestart(t *testing.T) {
	for name, test := range map[string]struct {
		play func(p *pod)
		wait time.Duration
		why  string
	}{
		"a reload hands the port over": {
			func(p *pod) {
				p.hook()
				for range 3 {
					p.app.join(8080)
					after(100 * ms)
					p.app.leave(8080)
					after(100 * ms)
				}
			}, 10 * time.Second, "old and new listened side by side",
		},
		"a prefork server loses workers and gains others": {
			func(p *pod) {
				p.app.join(8080)
				p.app.join(8080)
				p.hook()
				p.app.leave(8080)
				p.app.join(8080)
			}, 10 * time.Second, "some of them were there all the time",
		},
		"the pod is deleted while its app starts": {
			func(p *pod) {
				p.app.set(false)
				after(time.Second)
				p.hook()
				p.app.set(true)
			}, 10 * time.Second, "it did not listen when the hook was called",
		},
		"the pod is deleted while its app starts, and it crashes once": {
			func(p *pod) {
				p.app.set(false)
				after(time.Second)
				p.counter.set(1)
				p.call()
				p.app.set(true)
				after(time.Second)
				p.app.set(false)
				after(time.Second)
				p.app.set(true)
			}, 10 * time.Second, "it did not listen when the hook was called",
		},
		"the pod is deleted right when its app has crashed": {
			func(p *pod) {
				p.app.set(false) // no look has seen it
				p.hook()
				p.app.set(true)
			}, 10 * time.Second, "it did not listen when the hook was called",
		},
		"the pod is deleted while one of its containers is restarted": {
			func(p *pod) {
				p.hook() // of the other container's restart
				after(time.Second)
				p.app.close(8081)
				after(time.Second)
				p.hook() // of the deletion
				p.app.start(8081)
			}, 10 * time.Second, "it did not listen when the last hook was called",
		},
		"one of two hooks is given up, the other waits": {
			func(p *pod) {
				p.counter.set(1)
				p.call()
				p.call()
				after(5 * time.Second)
				p.app.start(8081)
			}, 10 * time.Second, "another container's hook waits for its requests",
		},
		"a hook breaks off within the grace period": {
			func(p *pod) {
				breakOff, _ := p.call()
				after(time.Second)
				breakOff()
			}, 28*time.Second + signalMargin, "a kubelet may call again",
		},
		"a kubelet that was restarted calls the hook again, and begins a grace period": {
			func(p *pod) {
				breakOff, _ := p.call()
				after(time.Second)
				breakOff()
				after(20 * time.Second)
				p.call()
			}, 29*time.Second + signalMargin, "its grace period has begun with that call",
		},
		"one of two containers does not come back": {
			func(p *pod) {
				p.hook()
				p.app.close(8081)
			}, time.Hour, "one of its ports is not listened on",
		},
		"SIGTERM has come": {
			func(p *pod) {
				p.call()
				p.Stop()
				after(10 * time.Second)
				p.app.start(8080)
			}, 10 * time.Second, "SIGTERM has come",
		},
		"somebody has asked for the drain": {
			func(p *pod) {
				p.Begin(CauseCall)
				p.hook()
				p.app.start(8080)
			}, time.Hour, "somebody has asked for it",
		},
		"somebody has asked for the drain later": {
			func(p *pod) {
				p.hook()
				p.Begin(CauseCall)
				p.app.start(8080)
			}, time.Hour, "somebody has asked for it",
		},
		"somebody has asked for the drain long before": {
			func(p *pod) {
				p.Begin(CauseCall)
				after(time.Hour)
				p.hook()
				p.app.start(8080)
			}, time.Hour, "somebody has asked for it",
		},
		"the port cannot be looked at": {
			func(p *pod) {
				p.app.change(func() { p.app.mode = failing })
				p.hook()
				p.app.start(8080)
			}, time.Hour, "nothing is known of the app",
		},
	} {
		t.Run(name, func(t *testing.T) {
			notes := &notebook{}
			inPod(t, on(notes, 8080, 8081), func(_ *testing.T, p *pod) {
				after(10 * time.Second)
				test.play(p)
				after(test.wait)
				p.staysOut(test.why)
			})
		})
	}
}

// A port that cannot be looked at leaves it to the postStart hook, also where a
// kubelet has given the preStop hook up and left its request open.
func TestPostStartUnderAHookThatWasGivenUp(t *testing.T) {
	notes := &notebook{}
	inPod(t, func(c *Config, _ *pod) {
		c.App, c.Observers = nil, []Observer{notes}
	}, func(_ *testing.T, p *pod) {
		p.counter.set(1)
		p.call()
		after(5 * time.Second)
		p.PostStart()
		after(24 * time.Second)
		p.staysOut("the hook may be another container's")
		after(time.Second + signalMargin)
		p.serves(notes, "postStart")
	})
	inPod(t, func(c *Config, _ *pod) { c.App = nil }, func(_ *testing.T, p *pod) {
		p.counter.set(1)
		p.call()
		after(5 * time.Second)
		p.PostStart()
		after(time.Second)
		p.call() // the pod's deletion
		after(time.Hour)
		p.staysOut("another hook was called after the app's start")
	})
}
