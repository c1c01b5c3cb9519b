package events

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
)

func TestADrainIsWritten(t *testing.T) {
	log := logged(t)
	inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
		w.Observe(drain.Event{Type: drain.EventDraining, At: time.Now(), Text: "the pod leaves"})
		settled(1500 * time.Millisecond)
		w.Observe(drain.Event{Type: drain.EventExpired, At: time.Now(), Text: "the budget ended"})
		settled(0)
		calls := api.had()
		if len(calls) != 2 {
			t.Fatalf("%d calls: %v", len(calls), calls)
		}
		want := event{
			APIVersion:         "v1",
			Kind:               "Event",
			Metadata:           metadata{Name: "web-0.d2162d5baf40000", Namespace: "shop"},
			InvolvedObject:     reference{"v1", "Pod", "shop", "web-0", "7d3f"},
			Type:               "Normal",
			Reason:             "Draining",
			Action:             "Drain",
			Message:            "the pod leaves",
			Source:             source{"lastcall"},
			ReportingComponent: "lastcall",
			ReportingInstance:  "web-0",
			EventTime:          "2000-01-01T00:00:00.000000Z",
			FirstTimestamp:     "2000-01-01T00:00:00Z",
			LastTimestamp:      "2000-01-01T00:00:00Z",
			Count:              1,
		}
		want.Metadata.Name = fmt.Sprintf("web-0.%x", api.began.UnixNano())
		if calls[0].event != want {
			t.Errorf("written\n%+v\nwant\n%+v", calls[0].event, want)
		}
		if e := calls[1].event; e.Type != "Warning" || e.Reason != "DrainExpired" || e.EventTime != "2000-01-01T00:00:01.500000Z" || e.Message != "the budget ended" {
			t.Errorf("written %+v", e)
		}
	})
	if log.Len() > 0 {
		t.Errorf("logged %s", log)
	}
}

// Every call sends the current token, because the kubelet renews it.
func TestTheTokenIsReadForEveryCall(t *testing.T) {
	inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
		api.answer(func(rw http.ResponseWriter, r *http.Request) {
			mount(t, strings.TrimSuffix(w.cluster.tokenFile, "token"), "token", "renewed\n")
			refused(http.StatusUnauthorized, "Unauthorized")(rw, r)
		})
		w.Observe(happens(drain.EventDraining))
		settled(time.Second)
		calls := api.had()
		if len(calls) != 2 || calls[0].token != tokenOf(claims) || calls[1].token != "renewed" {
			t.Fatalf("%d calls: %v", len(calls), calls)
		}
	})
}

func TestFaultsThatPass(t *testing.T) {
	for name, test := range map[string]struct {
		answers     []http.HandlerFunc
		calls       int
		atLeast, by time.Duration // when the event is written
	}{
		"an error":            {[]http.HandlerFunc{refused(500, "etcd"), refused(503, "etcd")}, 3, 480 * time.Millisecond, 600 * time.Millisecond},
		"too many requests":   {[]http.HandlerFunc{refused(429, "slow down", "Retry-After", "3")}, 2, 3 * time.Second, 3 * time.Second},
		"asks for an hour":    {[]http.HandlerFunc{refused(429, "slow down", "Retry-After", "3600")}, 2, mostWait, mostWait},
		"asks for nonsense":   {[]http.HandlerFunc{refused(429, "slow down", "Retry-After", "-1")}, 2, 160 * time.Millisecond, 200 * time.Millisecond},
		"no answer":           {[]http.HandlerFunc{hangs}, 2, callLimit + 160*time.Millisecond, callLimit + 200*time.Millisecond},
		"a broken connection": {[]http.HandlerFunc{breaks}, 2, 160 * time.Millisecond, 200 * time.Millisecond},
		// The first call succeeded, but its answer was lost.
		"an answer that is lost": {[]http.HandlerFunc{breaks, refused(409, "already exists")}, 2, 160 * time.Millisecond, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			log := logged(t)
			inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
				api.answer(test.answers...)
				w.Observe(happens(drain.EventDraining))
				settled(10 * time.Second)
				calls := api.had()
				if len(calls) != test.calls {
					t.Fatalf("%d calls, want %d", len(calls), test.calls)
				}
				if last := calls[len(calls)-1]; last.after < test.atLeast || last.after > test.by {
					t.Errorf("written after %v, want from %v to %v", last.after, test.atLeast, test.by)
				}
				for _, c := range calls {
					if c.event != calls[0].event {
						t.Errorf("retried with another event: %+v", c.event)
					}
				}
				w.Observe(happens(drain.EventDrained))
				settled(0)
				if got := api.reasons(); got != "Drained" {
					t.Errorf("then written: %s", got)
				}
			})
			if once, again := strings.Count(log.String(), "cannot write"), strings.Count(log.String(), "written again"); once != 1 || again != 1 {
				t.Errorf("logged\n%s", log)
			}
		})
	}
}

// A connection without a handshake is given up, and another one is opened.
func TestHandshakeThatHangs(t *testing.T) {
	logged(t)
	inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
		api.mute = 1
		w.Observe(happens(drain.EventDraining))
		settled(tryFor)
		if got := api.reasons(); got != "Draining" {
			t.Errorf("written: %q", got)
		}
	})
}

// If the API server is gone or answers 403, one log line says so, however long this
// lasts, and says what to do.
func TestFaultsThatStay(t *testing.T) {
	const forbidden = `events is forbidden: User "system:serviceaccount:shop:default" cannot create resource "events" in API group "" in the namespace "shop"`
	for name, test := range map[string]struct {
		answer      http.HandlerFunc // nil: refuses connections
		least, most int              // calls for one event
		says        string
	}{
		"forbidden": {refused(403, forbidden), 8, 12, "needs a Role with the verb create on events"},
		"invalid":   {refused(422, "Event is invalid: metadata.name"), 1, 1, "Event is invalid: metadata.name"},
		"redirects": {refused(307, "", "Location", "https://example.com/"), 1, 1, "307 Temporary Redirect"},
		"garbage":   {func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "<html>", http.StatusNotFound) }, 1, 1, "404 Not Found"},
		"failing":   {refused(500, "etcd"), 12, 20, "500 Internal Server Error: etcd"},
		"hanging":   {hangs, 6, 15, "NetworkPolicy"},
		"gone":      {nil, 12, 20, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			log := logged(t)
			inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
				api.refuse(test.answer == nil)
				api.answer(slices.Repeat([]http.HandlerFunc{test.answer}, 100)...)
				w.Observe(happens(drain.EventDraining))
				settled(tryFor + callLimit)
				if calls := max(len(api.had()), len(api.addresses())); test.answer != nil && calls < test.least || calls > test.most {
					t.Errorf("%d calls, want from %d to %d", calls, test.least, test.most)
				}
				w.Observe(happens(drain.EventDrained))
				if took := flushed(w, time.Second); took > time.Second {
					t.Errorf("the end of the process was held up for %v", took)
				}
				for _, address := range api.addresses() {
					if address != "127.0.0.1:6443" {
						t.Errorf("the token was taken to %s", address)
					}
				}
			})
			if text := log.String(); strings.Count(text, "cannot write") != 1 || !strings.Contains(text, test.says) || !strings.Contains(text, "lost=2") {
				t.Errorf("logged\n%s\nwant %q, once, and two lost", text, test.says)
			}
			if strings.Contains(log.String(), tokenOf(claims)) {
				t.Errorf("the token is in the log:\n%s", log)
			}
		})
	}
}

// An API server that has just started answers 403 until it has loaded its rules. So
// does one that learns of the Role a moment after the pod has started.
func TestForbiddenAtFirst(t *testing.T) {
	for name, test := range map[string]struct {
		lasts   time.Duration
		written bool
	}{
		"one second":       {time.Second, true},
		"nearly the limit": {forbiddenFor - mostWait, true},
		"beyond the limit": {forbiddenFor + mostWait, false},
		"for good":         {tryFor, false},
	} {
		t.Run(name, func(t *testing.T) {
			log := logged(t)
			inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
				api.answer(slices.Repeat([]http.HandlerFunc{func(rw http.ResponseWriter, r *http.Request) {
					if time.Since(api.began) < test.lasts {
						refused(403, "events is forbidden")(rw, r)
						return
					}
					created(rw, r)
				}}, 100)...)
				w.Observe(happens(drain.EventDraining))
				settled(tryFor)
				calls := api.had()
				last := calls[len(calls)-1]
				if written := last.after >= test.lasts; written != test.written {
					t.Errorf("the last of %d calls after %v: written %v, want %v", len(calls), last.after, written, test.written)
				}
				if !test.written && last.after > forbiddenFor+mostWait {
					t.Errorf("tried for %v, want little more than %v", last.after, forbiddenFor)
				}
				flushed(w, time.Second)
			})
			if warned := strings.Contains(log.String(), "cannot write"); warned == test.written {
				t.Errorf("logged %q", log)
			}
		})
	}
}

// After a refusal has lasted, later events are tried once, until one is written.
// Then a 403 counts as temporary again.
func TestForbiddenForGood(t *testing.T) {
	log := logged(t)
	inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
		forbidden := slices.Repeat([]http.HandlerFunc{refused(403, "events is forbidden")}, 100)
		api.answer(forbidden...)
		w.Observe(happens(drain.EventDraining))
		settled(tryFor)
		if calls := len(api.had()); calls < 8 {
			t.Errorf("%d calls for the first event", calls)
		}
		w.Observe(happens(drain.EventDrained))
		settled(tryFor)
		if got := api.reasons(); got != "Drained" {
			t.Errorf("called for: %s, want one call", got)
		}
		api.answer()
		w.Observe(happens(drain.EventTakenBack))
		settled(0)
		api.answer(forbidden[:3]...)
		w.Observe(happens(drain.EventExpired))
		settled(5 * time.Second)
		if got := api.reasons(); got != "DrainTakenBack DrainExpired DrainExpired DrainExpired DrainExpired" {
			t.Errorf("called for: %s", got)
		}
	})
	if once, again := strings.Count(log.String(), "cannot write"), strings.Count(log.String(), "written again"); once != 1 || again != 1 {
		t.Errorf("logged\n%s", log)
	}
}

// A proxy named by the environment is not used for the API server.
func TestNoProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
	t.Setenv("https_proxy", "http://proxy.example.com:3128")
	inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
		w.Observe(happens(drain.EventDraining))
		settled(0)
		if got := api.reasons(); got != "Draining" || api.addresses()[0] != "127.0.0.1:6443" {
			t.Errorf("%s, by way of %v", got, api.addresses())
		}
	})
}

// The token is not sent to a server whose certificate another authority has signed.
// The roots are read again after they have changed.
func TestTheServerIsVerified(t *testing.T) {
	log := logged(t)
	inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
		dir := strings.TrimSuffix(w.cluster.rootsFile, "ca.crt")
		right, err := read(w.cluster.rootsFile)
		if err != nil {
			t.Fatal(err)
		}
		mount(t, dir, "ca.crt", otherRoot(t))
		w.Observe(happens(drain.EventDraining))
		settled(tryFor)
		if calls := api.had(); len(calls) > 0 || len(api.addresses()) < 2 {
			t.Errorf("%d dials, %d calls: %v", len(api.addresses()), len(calls), calls)
		}
		mount(t, dir, "ca.crt", string(right))
		w.Observe(happens(drain.EventDrained))
		settled(time.Second)
		if got := api.reasons(); got != "Drained" {
			t.Errorf("written: %q", got)
		}
	})
	if !strings.Contains(log.String(), "unknown authority") {
		t.Errorf("logged %s", log)
	}
}

// The number of events per minute is limited, and the newest is kept.
func TestTheNumberOfEventsIsBounded(t *testing.T) {
	log := logged(t)
	inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
		for range 10 * perMinute {
			w.Observe(happens(drain.EventTakenBack))
		}
		settled(time.Minute)
		if calls := api.had(); len(calls) != perMinute {
			t.Errorf("%d events in a minute, want %d", len(calls), perMinute)
		}
		w.Observe(happens(drain.EventDrained))
		settled(0)
		if got := api.reasons(); got != "Drained" {
			t.Errorf("in the next minute: %s", got)
		}
		flushed(w, time.Second)
	})
	if want := fmt.Sprintf("lost=%d", 9*perMinute); !strings.Contains(log.String(), want) {
		t.Errorf("logged %s, want %s", log, want)
	}
}

// While the API server is away, the newest events are kept.
func TestTheQueueIsBounded(t *testing.T) {
	logged(t)
	inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
		api.refuse(true)
		for range 2 * perMinute {
			w.Observe(happens(drain.EventDraining))
			settled(2 * time.Second)
		}
		w.Observe(happens(drain.EventExpired))
		if len(w.queue) > queueLimit {
			t.Errorf("%d events wait", len(w.queue))
		}
		api.refuse(false)
		settled(mostWait)
		got := strings.Fields(api.reasons())
		if len(got) > queueLimit+1 || len(got) < 20 || got[len(got)-1] != "DrainExpired" {
			t.Errorf("%d written: %v", len(got), got)
		}
	})
}

// Two events of the same moment have different names.
func TestNamesDiffer(t *testing.T) {
	inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
		for range 3 {
			w.Observe(happens(drain.EventWithdrawn))
		}
		settled(0)
		names := map[string]bool{}
		for _, c := range api.had() {
			names[c.event.Metadata.Name] = true
		}
		if len(names) != 3 {
			t.Errorf("names %v", names)
		}
	})
}

func TestFlush(t *testing.T) {
	t.Run("nothing has happened", func(t *testing.T) {
		inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
			if took := flushed(w, time.Second); took != 0 || len(api.addresses()) != 0 {
				t.Errorf("took %v, %d connections", took, len(api.addresses()))
			}
		})
	})
	t.Run("the last event is written", func(t *testing.T) {
		inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
			w.Observe(happens(drain.EventDraining))
			w.Observe(happens(drain.EventExpired))
			flushed(w, time.Second)
			if got := api.reasons(); got != "Draining DrainExpired" {
				t.Errorf("written: %s", got)
			}
		})
	})
	t.Run("a wait for the next try ends", func(t *testing.T) {
		logged(t)
		inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
			api.answer(refused(429, "slow down", "Retry-After", "5"))
			w.Observe(happens(drain.EventDraining))
			w.Observe(happens(drain.EventDrained))
			settled(time.Second)
			if took := flushed(w, time.Second); took != 0 {
				t.Errorf("took %v", took)
			}
			if got := api.reasons(); got != "Draining Draining Drained" {
				t.Errorf("called for: %s", got)
			}
		})
	})
	t.Run("nothing is tried twice", func(t *testing.T) {
		log := logged(t)
		inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
			api.answer(slices.Repeat([]http.HandlerFunc{refused(500, "")}, 4)...)
			settled(0)
			w.Observe(happens(drain.EventDraining))
			w.Observe(happens(drain.EventDrained))
			settled(0)
			if took := flushed(w, time.Second); took != 0 {
				t.Errorf("took %v", took)
			}
			if got := api.reasons(); got != "Draining Draining Drained" {
				t.Errorf("called for: %s", got)
			}
		})
		if !strings.Contains(log.String(), "lost=2") {
			t.Errorf("logged %s", log)
		}
	})
	t.Run("forbidden", func(t *testing.T) {
		log := logged(t)
		inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
			api.answer(slices.Repeat([]http.HandlerFunc{refused(403, "events is forbidden")}, 10)...)
			w.Observe(happens(drain.EventDrained))
			settled(time.Second)
			before := len(api.had())
			if log.Len() != 0 {
				t.Errorf("logged %s", log)
			}
			if took := flushed(w, time.Second); took != 0 {
				t.Errorf("took %v", took)
			}
			if after := len(api.had()); before < 2 || after != 1 {
				t.Errorf("%d calls before the end, and %d at it", before, after)
			}
		})
		if !strings.Contains(log.String(), "a Role with the verb create") || !strings.Contains(log.String(), "lost=1") {
			t.Errorf("logged %s", log)
		}
	})
	t.Run("nobody answers", func(t *testing.T) {
		log := logged(t)
		inPod(t, func(t *testing.T, w *Writer, api *apiServer) {
			api.answer(slices.Repeat([]http.HandlerFunc{hangs}, 2)...)
			w.Observe(happens(drain.EventDraining))
			w.Observe(happens(drain.EventExpired))
			settled(0)
			if took := flushed(w, 500*time.Millisecond); took != 500*time.Millisecond {
				t.Errorf("took %v", took)
			}
			settled(0)
			if got := api.reasons(); !strings.HasPrefix(got, "Draining") {
				t.Errorf("called for: %s", got)
			}
		})
		if !strings.Contains(log.String(), "lost=2") {
			t.Errorf("logged %s", log)
		}
	})
}
