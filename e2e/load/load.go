// Package load makes a constant load of HTTP requests and counts their results.
//
// No request is sent twice. After a broken connection, Go's client would silently
// repeat a request that is idempotent or not yet written. The requests here are POSTs
// whose body can be read only once, so the client cannot repeat them. Each connection
// that breaks during a request is therefore counted as a failure.
package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// PodHeader is the response header that contains the name of the app's pod.
const PodHeader = "X-Pod"

// done is the body of a response.
const done = "done"

// mostInFlight is the maximum number of requests in flight. A request beyond it counts
// as failed.
const mostInFlight = 2000

// mostSamples is the maximum number of failures that are recorded individually.
const mostSamples = 20

// Config is the configuration of a Load.
type Config struct {
	// URL is the address of the requests. The query parameters for=DURATION and
	// ms=MILLISECONDS are added, which tell the app how long it must take.
	URL string
	// Target, if set, returns the URL for each request instead. It is for clients that
	// look up pods themselves.
	Target func(context.Context) (url string, err error)
	// Answer returns the expected response to a request for that time. If it is nil,
	// the response of the function Answer is expected.
	Answer func(asked time.Duration) string
	// Body is the request's body. If it is empty, a few bytes are sent.
	Body string
	// Any reports whether any response with the status 200 is accepted.
	Any bool
	// Rate is the number of requests that begin each second, whether or not earlier
	// ones have been answered.
	Rate float64
	// Shortest and Longest are the limits of the time that requests take. The times
	// are distributed evenly.
	Shortest, Longest time.Duration
	// KeepAlive is the share of requests (0 to 1) that use kept connections. Each of
	// the others opens a new one.
	KeepAlive float64
	// Idle is how long a kept connection may be idle before the client closes it.
	Idle time.Duration
	// Patience is how long a response may take beyond the requested time.
	Patience time.Duration
}

// Counts holds the results of the requests so far.
type Counts struct {
	Requests int64            `json:"requests"` // that have ended, successfully or not
	Failed   int64            `json:"failed"`
	InFlight int64            `json:"in_flight"`
	Errors   map[string]int64 `json:"errors,omitempty"`  // failures by kind
	Samples  []Failure        `json:"samples,omitempty"` // the first failures
	Pods     map[string]int64 `json:"pods,omitempty"`    // answers by pod
	// The time that responses took beyond the requested time, in seconds.
	DelayMedian float64 `json:"delay_median_s"`
	DelayP99    float64 `json:"delay_p99_s"`
	DelayMax    float64 `json:"delay_max_s"`
}

// Failure is one request that failed.
type Failure struct {
	Begun     time.Time `json:"begun"`
	Seconds   float64   `json:"seconds"` // from its beginning to its failure
	Asked     float64   `json:"asked_s"` // the requested time
	KeepAlive bool      `json:"keep_alive"`
	Error     string    `json:"error"`
}

// Load is a running load.
type Load struct {
	config       Config
	fresh, kept  *http.Client
	stop         chan struct{}
	stopOnce     sync.Once
	ended        chan struct{} // closed when the last request has ended
	mu           sync.Mutex
	counts       Counts
	delaySeconds []float64
}

// Start starts a load. The load begins when the app can be reached, because a Service
// begins to work some time after its pods are ready. It ends at Stop or with ctx. The
// end of ctx also cancels the requests in flight.
func Start(ctx context.Context, config Config) *Load {
	client := func(t *http.Transport) *http.Client {
		t.DialContext = (&net.Dialer{Timeout: config.Patience}).DialContext
		return &http.Client{Transport: t}
	}
	l := &Load{
		config: config,
		fresh:  client(&http.Transport{DisableKeepAlives: true}),
		kept:   client(&http.Transport{MaxIdleConnsPerHost: mostInFlight, IdleConnTimeout: config.Idle}),
		stop:   make(chan struct{}),
		ended:  make(chan struct{}),
		counts: Counts{Errors: map[string]int64{}, Pods: map[string]int64{}},
	}
	go l.run(ctx)
	return l
}

func (l *Load) run(ctx context.Context) {
	defer close(l.ended)
	if !l.reach(ctx) {
		return
	}
	var requests sync.WaitGroup
	defer requests.Wait()
	next := time.NewTicker(time.Duration(float64(time.Second) / l.config.Rate))
	defer next.Stop()
	for i := 1; ; i++ {
		select {
		case <-next.C:
			requests.Go(func() { l.request(ctx, i) })
		case <-l.stop:
			return
		case <-ctx.Done():
			return
		}
	}
}

// reach waits until the app has answered several times in a row. These requests are not
// counted. It returns false if the load is stopped first.
func (l *Load) reach(ctx context.Context) bool {
	const enough = 10
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for row := 0; row < enough; {
		select {
		case <-again.C:
		case <-l.stop:
			return false
		case <-ctx.Done():
			return false
		}
		if _, err := l.ask(ctx, l.fresh, time.Millisecond); err == nil {
			row++
		} else {
			row = 0
		}
	}
	return true
}

// request makes the i-th request.
func (l *Load) request(ctx context.Context, i int) {
	asked := l.config.Shortest + time.Duration(spread(i, math.Phi)*float64(l.config.Longest-l.config.Shortest)).Round(time.Millisecond)
	keepAlive := spread(i, math.Sqrt2) < l.config.KeepAlive
	client := l.fresh
	if keepAlive {
		client = l.kept
	}
	if !l.begin() {
		l.end(Failure{Begun: time.Now(), KeepAlive: keepAlive, Asked: asked.Seconds()}, "", fmt.Errorf("more than %d requests wait for an answer", mostInFlight))
		return
	}
	begun := time.Now()
	pod, err := l.ask(ctx, client, asked)
	l.end(Failure{Begun: begun, Seconds: time.Since(begun).Seconds(), Asked: asked.Seconds(), KeepAlive: keepAlive}, pod, err)
}

// spread returns a number from 0 to 1 for each i. The numbers are distributed evenly
// and are the same in each run.
func spread(i int, irrational float64) float64 {
	_, fraction := math.Modf(float64(i) * irrational)
	return fraction
}

// onceReader has no method but Read, so http.NewRequest cannot keep a copy of the body
// to send it again.
type onceReader struct{ io.Reader }

// ask makes one request and returns the name of the pod that answered, or the address
// if the response does not contain the name.
func (l *Load) ask(ctx context.Context, client *http.Client, asked time.Duration) (pod string, err error) {
	ctx, cancel := context.WithTimeout(ctx, asked+l.config.Patience)
	defer cancel()
	url := l.config.URL
	if l.config.Target != nil {
		if url, err = l.config.Target(ctx); err != nil {
			return "", err
		}
	}
	body := cmp.Or(l.config.Body, "work")
	query := fmt.Sprintf("?for=%v&ms=%d", asked, asked.Milliseconds())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+query, onceReader{strings.NewReader(body)})
	if err != nil {
		return "", err
	}
	request.ContentLength = int64(len(body))
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	pod = cmp.Or(response.Header.Get(PodHeader), request.URL.Host)
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1000))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return pod, err
	}
	want := done
	if l.config.Answer != nil {
		want = l.config.Answer(asked)
	}
	if response.StatusCode != http.StatusOK || string(answer) != want && !l.config.Any {
		return pod, fmt.Errorf("answer %s %q, want 200 and %q", response.Status, answer, want)
	}
	return pod, nil
}

func (l *Load) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.InFlight++
	return l.counts.InFlight <= mostInFlight
}

func (l *Load) end(f Failure, pod string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.InFlight--
	l.counts.Requests++
	if err == nil {
		l.counts.Pods[pod]++
		l.delaySeconds = append(l.delaySeconds, f.Seconds-f.Asked)
		return
	}
	l.counts.Failed++
	l.counts.Errors[kind(err)]++
	if len(l.counts.Samples) < mostSamples {
		f.Error = err.Error()
		l.counts.Samples = append(l.counts.Samples, f)
	}
}

// kind returns the kind of a failure: its error without addresses.
func kind(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "EOF"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer in time"
	case strings.Contains(err.Error(), "server closed idle connection"):
		return "server closed the kept connection"
	}
	text := err.Error()
	return text[strings.LastIndex(text, ": ")+1:]
}

// Counts returns the results of the requests so far.
func (l *Load) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := l.counts
	counts.Errors, counts.Pods = maps.Clone(counts.Errors), maps.Clone(counts.Pods)
	counts.Samples = slices.Clone(counts.Samples)
	if n := len(l.delaySeconds); n > 0 {
		sorted := slices.Sorted(slices.Values(l.delaySeconds))
		counts.DelayMedian, counts.DelayP99, counts.DelayMax = sorted[n/2], sorted[n*99/100], sorted[n-1]
	}
	return counts
}

// Finish makes the load begin no more requests. Those in flight continue.
func (l *Load) Finish() { l.stopOnce.Do(func() { close(l.stop) }) }

// Stop makes the load begin no more requests, waits for those in flight, and returns
// the counts.
func (l *Load) Stop() Counts {
	l.Finish()
	<-l.ended
	return l.Counts()
}

// Answer handles a request in the app: it responds after the requested time. It returns
// false if the client closes the connection first.
func Answer(w http.ResponseWriter, r *http.Request, pod string) bool {
	took, err := time.ParseDuration(r.URL.Query().Get("for"))
	if err != nil {
		http.Error(w, "how long? ask with ?for=300ms", http.StatusBadRequest)
		return true
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20)); err != nil {
		return false
	}
	work := time.NewTimer(took)
	defer work.Stop()
	select {
	case <-work.C:
	case <-r.Context().Done():
		return false
	}
	w.Header().Set(PodHeader, pod)
	w.Header().Set("Content-Length", strconv.Itoa(len(done)))
	_, err = io.WriteString(w, done)
	return err == nil
}
