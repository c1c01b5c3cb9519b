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

// workload is what clients do, and how they learn where.
type workload struct {
	shortest, longest   time.Duration // a request's work; as many from 0.1 to 1 s as from 0.5 to 5 s
	restLeast, restMost time.Duration // a client's pause between requests
	idle                time.Duration // after which a client closes a connection that it keeps
	lagLeast, lagMost   time.Duration // until an endpoint that was dropped is used no more
	refresh             time.Duration // how long a registry's client uses what it was told
	newcomers           time.Duration // how often a new client comes up
	byEndpoints         int           // clients that come by endpoints
	byRegistry          int           // clients that come by the registry
}

// tally counts requests.
type tally struct {
	mu       sync.Mutex
	requests int
	failures []failure
}

// failure is a request that its user saw fail.
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

// client sends one request after the other. Which, to whom and when comes from
// its seed. It tries nothing twice, and neither does Go's client, as they are
// POST requests.
type client struct {
	workload
	http   *http.Client
	random *rand.Rand
	known  func() []string // where the app is
	tally  *tally
}

// newClient makes a client that keeps its connections, as Go's do by default,
// or makes a fresh one for each request.
func (w workload) newClient(seed, number uint64, keeps bool, known func() []string, t *tally) *client {
	return &client{
		workload: w,
		http:     &http.Client{Transport: &http.Transport{DisableKeepAlives: !keeps, IdleConnTimeout: w.idle}},
		random:   rand.New(rand.NewPCG(seed, number)), //nolint:gosec // nothing is secret here
		known:    known,
		tally:    t,
	}
}

// run sends requests until stop is closed, and finishes the last one.
func (c *client) run(ctx context.Context, stop <-chan struct{}) {
	defer c.http.CloseIdleConnections()
	for !isClosed(stop) {
		took, rest, which := c.next()
		known := c.known()
		if len(known) == 0 {
			c.tally.add(fmt.Errorf("it knows no pod"))
		} else {
			c.tally.add(c.request(ctx, known[which%len(known)], took))
		}
		_ = sleep(ctx, rest)
	}
}

// next reads a line of the client's script: how long its request takes, the
// pause after it, and which of the pods it goes to.
func (c *client) next() (took, rest time.Duration, which int) {
	spread := math.Log(float64(c.longest) / float64(c.shortest))
	took = time.Duration(float64(c.shortest) * math.Exp(c.random.Float64()*spread))
	return took, c.restLeast + rand64(c.random, c.restMost-c.restLeast), c.random.IntN(1 << 20)
}

func rand64(r *rand.Rand, below time.Duration) time.Duration {
	return time.Duration(r.Int64N(max(int64(below), 1)))
}

// answerLimit is how long after its work an answer may come.
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
