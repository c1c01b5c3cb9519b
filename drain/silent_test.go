package drain

import (
	"strings"
	"testing"
	"time"
)

func silentApp(others ...int) func(*Config, *pod) {
	return func(c *Config, p *pod) {
		p.app = &fakeApp{names: []int{8081}, others: others}
		c.App = p.app
		c.Registries = nil
	}
}

// The port is misspelt: the app listens on 8080.
func TestAWrongPortIsTold(t *testing.T) {
	const text = "nobody has ever listened on port 8081 of LASTCALL_APP_PORT: the app has not started, or the port is wrong; the pod listens on 8080, 9090"
	notes := &notebook{}
	inPod(t, func(c *Config, p *pod) {
		silentApp(8080, 9090)(c, p)
		c.Observers = []Observer{notes}
	}, func(t *testing.T, p *pod) {
		after(59 * time.Second)
		if got := notes.read(); got != "" || p.Status(t.Context()).Warnings != nil {
			t.Errorf("told within a minute: %s", got)
		}
		after(2 * time.Second)
		if got := notes.read(); got != "AppPortSilent: "+text {
			t.Errorf("told %s", got)
		}
		if got := p.Status(t.Context()).Warnings; len(got) != 1 || got[0] != text {
			t.Errorf("the status warns of %q", got)
		}
		after(time.Hour)
		if got := notes.read(); got != "" {
			t.Errorf("told once more: %s", got)
		}
		if ports := p.Totals(t.Context()).Ports; len(ports) != 1 || !ports[0].Silent || ports[0].Listening {
			t.Errorf("counted are %+v", ports)
		}

		report, took := p.hook()
		if report.Outcome != OutcomeExpired || took != 25*time.Second {
			t.Errorf("the drain ended as %s after %v, want expired with the budget: it cannot have seen the work", report.Outcome, took)
		}
		got := notes.read()
		if strings.Count(got, "AppPortSilent: "+text) != 1 || !strings.Contains(got, "DrainExpired: the budget of 25s ended, waiting for 1s of quiet, somebody to listen on port 8081 of LASTCALL_APP_PORT, which nobody ever has, the pod listens on 8080, 9090") {
			t.Errorf("told\n%s", got)
		}
	})
}

func TestAPortThatIsSilentForAWhile(t *testing.T) {
	notes := &notebook{}
	inPod(t, func(c *Config, p *pod) {
		silentApp(8080)(c, p)
		c.Observers = []Observer{notes}
	}, func(t *testing.T, p *pod) {
		// The pod is deleted while its app starts: the drain waits for it...
		go func() {
			after(10 * time.Second)
			p.counter.set(1)
			p.app.set(true)
			after(5 * time.Second)
			p.counter.set(0)
		}()
		report, took := p.hook()
		if report.Outcome != OutcomeDrained || took < 16*time.Second || took > 17*time.Second {
			t.Errorf("%s after %v, want drained once it listens and has ended its work", report.Outcome, took)
		}
		if got := p.Status(t.Context()).Warnings; got != nil {
			t.Errorf("the status still warns of %q", got)
		}
	})
}

func TestSilentPorts(t *testing.T) {
	for name, test := range map[string]struct {
		ports, listen, others []int
		broken                bool
		outcome               Outcome
		tells                 string
	}{
		"all are listened on":             {[]int{8080, 8081}, []int{8080, 8081}, []int{9090}, false, OutcomeDrained, ""},
		"one of two is silent":            {[]int{8080, 8081}, []int{8080}, []int{9090}, false, OutcomeExpired, "port 8081 of"},
		"both are":                        {[]int{8080, 8081}, nil, []int{9090}, false, OutcomeExpired, "port 8080, 8081 of"},
		"the pod listens on nothing else": {[]int{8080}, nil, nil, false, OutcomeDrained, "the pod listens on no other"},
		"the kernel refuses the look":     {[]int{8080}, nil, []int{9090}, true, OutcomeDrained, ""},
	} {
		t.Run(name, func(t *testing.T) {
			notes := &notebook{}
			inPod(t, func(c *Config, p *pod) {
				p.app = &fakeApp{names: test.ports, others: test.others}
				for _, port := range test.listen {
					p.app.start(port)
				}
				if test.broken {
					p.app.mode = failing
				}
				c.App, c.Observers, c.Registries = p.app, []Observer{notes}, nil
			}, func(t *testing.T, p *pod) {
				after(time.Second)
				report, _ := p.hook()
				if report.Outcome != test.outcome {
					t.Errorf("%s, %s", report.Outcome, report.WaitingFor)
				}
				got := notes.read()
				if told := strings.Contains(got, "AppPortSilent"); told != (test.tells != "") || !strings.Contains(got, test.tells) {
					t.Errorf("told\n%s\nwant %q", got, test.tells)
				}
				if test.broken && len(p.Status(t.Context()).Warnings) != 1 {
					t.Error("the status does not warn that the app cannot be seen")
				}
			})
		})
	}
}

// A port that was listened on before is not silent, and an app whose port is not
// known has none.
func TestNothingIsSaidOfAnAppThatIsGone(t *testing.T) {
	for _, known := range []bool{true, false} {
		notes := &notebook{}
		inPod(t, func(c *Config, p *pod) {
			c.Observers = []Observer{notes}
			p.app.others = []int{9090}
			if !known {
				c.App = nil
			}
		}, func(t *testing.T, p *pod) {
			after(time.Second)
			p.app.set(false)
			after(time.Hour)
			if report, _ := p.hook(); report.Outcome != OutcomeDrained {
				t.Errorf("%s", report.Outcome)
			}
			if got := notes.read(); strings.Contains(got, "AppPortSilent") {
				t.Errorf("told\n%s", got)
			}
		})
	}
}
