package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"lastcall/internal/demo/registry"
)

// client is a client of the app. It asks the registry at intervals where the app
// is, uses an answer until it asks again, and sends one request after the other. It
// never retries: a user would see each failure.
type client struct {
	timing
	eureka string // the service URL
	trace  *trace
	http   *http.Client
	random *rand.Rand

	mu    sync.Mutex
	cache []string // addresses of instances that are UP
}

func newClient(t timing, eureka string, tr *trace, seed uint64) *client {
	return &client{
		timing: t,
		eureka: eureka,
		trace:  tr,
		http:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}},
		random: rand.New(rand.NewPCG(seed, 0)), //nolint:gosec // not for security
	}
}

// discover refreshes the client's cache until ctx ends. The first interval is
// random, so that clients that started together do not ask at the same moments
// forever.
func (c *client) discover(ctx context.Context) {
	wait := rand.N(c.fetch) //nolint:gosec // not for security
	for ; ctx.Err() == nil; wait = c.fetch {
		if addresses, err := c.ask(ctx); err == nil {
			c.mu.Lock()
			c.cache = addresses
			c.mu.Unlock()
		} // otherwise the client keeps its copy
		pause(ctx, wait)
	}
}

// maxAnswer is the maximum size of the registry's answer, in bytes.
const maxAnswer = 1 << 20

func (c *client) ask(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, c.eureka+"/apps", http.NoBody)
	if err != nil {
		return nil, err
	}
	q.Header.Set("Accept", "application/json")
	a, err := c.http.Do(q)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	var answer struct {
		Applications struct {
			Application []struct {
				Name     string
				Instance []registry.Instance
			}
		}
	}
	if err := json.NewDecoder(io.LimitReader(a.Body, maxAnswer)).Decode(&answer); err != nil {
		return nil, err
	}
	var addresses []string
	for _, application := range answer.Applications.Application {
		for n := range application.Instance {
			i := &application.Instance[n]
			if application.Name == appName && i.Status == registry.Up {
				addresses = append(addresses, fmt.Sprintf("%s:%d", i.IPAddr, i.Port.Number))
			}
		}
	}
	return addresses, nil
}

func (c *client) known() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.cache)
}

// send sends requests until stop is closed, and then finishes the last one.
func (c *client) send(ctx context.Context, stop <-chan struct{}) {
	for !closed(stop) && ctx.Err() == nil {
		took := c.shortest + time.Duration(c.random.Int64N(int64(c.longest-c.shortest)))
		c.trace.requested()
		err := c.request(ctx, took)
		if ctx.Err() != nil {
			return // the demo was stopped
		}
		c.trace.answered(err)
		pause(ctx, c.think/2+time.Duration(c.random.Int64N(int64(c.think))))
	}
	c.http.CloseIdleConnections()
}

func (c *client) request(ctx context.Context, took time.Duration) error {
	addresses := c.known()
	if len(addresses) == 0 {
		return errors.New("the registry lists no instance")
	}
	to := addresses[c.random.IntN(len(addresses))]
	ctx, cancel := context.WithTimeout(ctx, took+callLimit)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+to+"/work?for="+took.String(), http.NoBody)
	if err != nil {
		return err
	}
	a, err := c.http.Do(q)
	if inURL := (*url.Error)(nil); errors.As(err, &inURL) {
		return inURL.Err
	}
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return errors.New(a.Status)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(a.Body, maxAnswer))
	return err
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
