package compare

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// workload describes what clients do, and how they discover pods.
type workload struct {
	shortest, longest   time.Duration // work of a request; as many from 0.1 to 1 s as from 0.5 to 5 s
	restLeast, restMost time.Duration // a client's pause between requests
	idle                time.Duration // after this, a client closes an idle connection
	lagLeast, lagMost   time.Duration // until clients stop using a removed endpoint
	refresh             time.Duration // how long a registry's client uses an answer
	newcomers           time.Duration // how often a new client starts
	byEndpoints         int           // clients that use endpoints
	byRegistry          int           // clients that use the registry
}

// tally counts requests.
type tally struct {
	mu       sync.Mutex
	requests int
	failures []failure
}

// failure is a failed request, as a user would see it.
type failure struct {
	at  time.Time
	err error
}

func (t *tally) add(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests++
	if err != nil {
		t.failures = append(t.failures, failure{time.Now(), err})
	}
}

// client sends one request after the other. Its seed decides the length, the target
// and the time of each. It never retries. Go's HTTP client does not either, because
// these are POST requests.
type client struct {
	workload
	http   *http.Client
	random *rand.Rand
	known  func() []string // the app's addresses
	tally  *tally
}

// newClient returns a client that keeps its connections open, as Go's HTTP client
// does by default, or opens a new one for each request.
func (w workload) newClient(seed, number uint64, keeps bool, known func() []string, t *tally) *client {
	return &client{
		workload: w,
		http:     &http.Client{Transport: &http.Transport{DisableKeepAlives: !keeps, IdleConnTimeout: w.idle}},
		random:   rand.New(rand.NewPCG(seed, number)), //nolint:gosec // not for security
		known:    known,
		tally:    t,
	}
}

// run sends requests until stop is closed, and then finishes the last one.
func (c *client) run(ctx context.Context, stop <-chan struct{}) {
	defer c.http.CloseIdleConnections()
	for !isClosed(stop) {
		took, rest, which := c.next()
		known := c.known()
		if len(known) == 0 {
			c.tally.add(fmt.Errorf("the client knows no pod"))
		} else {
			c.tally.add(c.request(ctx, known[which%len(known)], took))
		}
		_ = sleep(ctx, rest)
	}
}

// next returns the client's next random values: how long its request takes, the
// pause after it, and the index of the pod.
func (c *client) next() (took, rest time.Duration, which int) {
	spread := math.Log(float64(c.longest) / float64(c.shortest))
	took = time.Duration(float64(c.shortest) * math.Exp(c.random.Float64()*spread))
	return took, c.restLeast + rand64(c.random, c.restMost-c.restLeast), c.random.IntN(1 << 20)
}

func rand64(r *rand.Rand, below time.Duration) time.Duration {
	return time.Duration(r.Int64N(max(int64(below), 1)))
}

// answerLimit is how long after the end of its work an answer may arrive.
const answerLimit = 10 * time.Second

func (c *client) request(ctx context.Context, address string, took time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, took+answerLimit)
	defer cancel()
	return call(ctx, c.http, http.MethodPost, "http://"+address+"/?for="+took.String(), nil)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
