package counting

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"

	"lastcall/internal/test/sidecar"
)

// The judges: who decides when a drain is over.
const (
	Default     = "default"
	Requests    = "requests, 5 s"
	Connections = "connections"
)

// Judges returns all judges, in the order of the table's columns.
func Judges() []string { return []string{Default, Requests, Connections} }

const (
	endpointsWait = 3 * time.Second // LASTCALL_ENDPOINTS_WAIT, the default
	// needlessAfter is how long a drain may continue after the end of all work.
	needlessAfter = 8 * time.Second
	// gracePeriod is longer than a run.
	gracePeriod = 100 * time.Second
)

// Verdict is a judge's verdict.
type Verdict struct {
	// Seconds is the time from the hook's call to its return; 0 if it did not
	// return in time.
	Seconds float64 `json:"seconds,omitempty"`
	Outcome string  `json:"outcome"`
	// Open lists the requests that were in flight when the judge said that the pod
	// was drained. If there are any, the return was early.
	Open []string `json:"open,omitempty"`
	// Needless is set if the drain was not over needlessAfter after the last work,
	// or after the wait for endpoints if that ended later.
	Needless bool `json:"needless,omitempty"`
	// The judge's own data.
	Before json.RawMessage `json:"before,omitempty"` // status just before the hook
	During json.RawMessage `json:"during,omitempty"` // status a moment after it
	After  json.RawMessage `json:"after,omitempty"`  // status at the end
	Log    string          `json:"log,omitempty"`    // only if the verdict was wrong
}

// Early reports whether the drain ended with a request in flight.
func (v *Verdict) Early() bool { return len(v.Open) > 0 }

const (
	outcomeDrained = "drained"
	outcomeWaiting = "still waiting"
)

// sidecars returns the judges that are programs, each with its environment.
func sidecars() map[string][]string {
	return map[string][]string{
		Default:  nil,
		Requests: {"LASTCALL_TCP_COUNT=requests", "LASTCALL_TCP_SILENCE=5s"},
	}
}

// returned is when a hook returned, and its outcome.
type returned struct {
	at      time.Time
	outcome string
}

// status returns a sidecar's status, or nil if it does not answer in time.
func status(ctx context.Context, s *sidecar.Sidecar) json.RawMessage {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	a := s.Call(ctx, http.MethodGet, "/status")
	if a.Err != nil || !json.Valid([]byte(a.Body)) {
		return nil
	}
	return json.RawMessage(a.Body)
}

// callHook calls a sidecar's hook, as the kubelet does.
func callHook(ctx context.Context, s *sidecar.Sidecar) <-chan returned {
	answer := make(chan returned, 1)
	hook := s.PreStop(ctx)
	go func() {
		a := <-hook
		r := returned{at: a.At}
		var report struct{ Outcome string }
		switch {
		case a.Err != nil:
			r.outcome = a.Err.Error()
		case a.Code == http.StatusOK:
			r.outcome = outcomeDrained
		case json.Unmarshal([]byte(a.Body), &report) == nil && report.Outcome != "":
			r.outcome = report.Outcome
		default:
			r.outcome = a.Body
		}
		answer <- r
	}()
	return answer
}

// observer counts the open connections of each port once a second. It follows the
// rule of the gateways' shutdown managers: a drain is over when none is open.
type observer struct {
	mu      sync.Mutex
	at      time.Time
	open    map[int]int
	failure error
	looked  chan struct{} // closed at the next count
}

// observeEvery is the interval of Envoy Gateway's shutdown manager.
const observeEvery = time.Second

func startObserver(t testing.TB) *observer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	o := &observer{looked: make(chan struct{})}
	go func() {
		for ctx.Err() == nil {
			o.look()
			_ = sleep(ctx, observeEvery) // an error ends the loop
		}
	}()
	return o
}

func (o *observer) look() {
	open, err := established()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.at, o.open, o.failure = time.Now(), open, err
	close(o.looked)
	o.looked = make(chan struct{})
}

// hook returns when no connection is open on port, but not before the wait for
// endpoints is over.
func (o *observer) hook(ctx context.Context, port int) <-chan returned {
	answer := make(chan returned, 1)
	began := time.Now()
	go func() {
		for {
			o.mu.Lock()
			at, open, err, next := o.at, o.open[port], o.failure, o.looked
			o.mu.Unlock()
			if err != nil {
				answer <- returned{time.Now(), err.Error()}
				return
			}
			if at.Sub(began) >= endpointsWait && open == 0 {
				answer <- returned{time.Now(), outcomeDrained}
				return
			}
			select {
			case <-next:
			case <-ctx.Done():
				answer <- returned{time.Now(), ctx.Err().Error()}
				return
			}
		}
	}()
	return answer
}
