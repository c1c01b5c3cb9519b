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

// The judges: who says when a drain is over.
const (
	Default     = "default"
	Requests    = "requests, 5 s"
	Connections = "connections"
)

// Judges are all of them, in the order of the table's columns.
func Judges() []string { return []string{Default, Requests, Connections} }

const (
	endpointsWait = 3 * time.Second // LASTCALL_ENDPOINTS_WAIT, the default
	// needlessAfter is how long after the end of all work a drain may last.
	needlessAfter = 8 * time.Second
	// gracePeriod is more than a run takes.
	gracePeriod = 100 * time.Second
)

// Verdict is what a judge said.
type Verdict struct {
	// Seconds from the hook's call to its return; 0 when it was waited for in
	// vain.
	Seconds float64 `json:"seconds,omitempty"`
	Outcome string  `json:"outcome"`
	// Open are the requests that had begun and were not answered when it said
	// that the pod was drained: an early return.
	Open []string `json:"open,omitempty"`
	// Needless is set when it had not said so needlessAfter after the last
	// work, or after the wait for endpoints where that is later.
	Needless bool `json:"needless,omitempty"`
	// What it had to say for itself.
	Before json.RawMessage `json:"before,omitempty"` // the status just before the hook
	During json.RawMessage `json:"during,omitempty"` // and a moment after it
	After  json.RawMessage `json:"after,omitempty"`  // and at the end
	Log    string          `json:"log,omitempty"`    // where it was wrong
}

// Early reports whether the drain ended with a request in flight.
func (v *Verdict) Early() bool { return len(v.Open) > 0 }

const (
	outcomeDrained = "drained"
	outcomeWaiting = "still waiting"
)

// sidecars are the judges that are programs, each with its environment.
func sidecars() map[string][]string {
	return map[string][]string{
		Default:  nil,
		Requests: {"LASTCALL_TCP_COUNT=requests", "LASTCALL_TCP_SILENCE=5s"},
	}
}

// returned is when and how a hook did.
type returned struct {
	at      time.Time
	outcome string
}

// status is what a sidecar says of itself; nil when it says nothing in time.
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

// observer looks once a second at how many connections are open on each port.
// That is the rule of the gateways' shutdown managers: none may be.
type observer struct {
	mu      sync.Mutex
	at      time.Time
	open    map[int]int
	failure error
	looked  chan struct{} // closed with the next look
}

// observeEvery is how often Envoy Gateway's shutdown manager looks.
const observeEvery = time.Second

func startObserver(t testing.TB) *observer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	o := &observer{looked: make(chan struct{})}
	go func() {
		for ctx.Err() == nil {
			o.look()
			_ = sleep(ctx, observeEvery) // then it is over
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

// hook returns when no connection is open on port, and not before the wait for
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
