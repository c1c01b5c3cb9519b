// Package load makes a constant load of HTTP requests and counts what becomes
// of them.
//
// No request is ever sent twice. Go's client would silently repeat one whose
// connection broke, if it may be repeated or was not yet written; these cannot
// be: they are POSTs whose body can be read once. So each connection that drops
// under a request is seen as a failure.
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

// PodHeader is the response header in which the app tells its pod's name.
const PodHeader = "X-Pod"

// done is the body of an answer.
const done = "done"

// mostInFlight bounds the load where nothing is answered: a request beyond it
// counts as failed.
const mostInFlight = 2000

// mostSamples is how many failures are told one by one.
const mostSamples = 20

// Config says what is asked for.
type Config struct {
	// URL is asked with ?for=DURATION, how long the app shall take, and the same
	// as ?ms=NUMBER.
	URL string
	// Target, if set, tells the URL for each request, where clients find their
	// pods by themselves.
	Target func(context.Context) (url string, err error)
	// Answer is what the app answers when it was asked for that time; if nil, as
	// the function Answer does.
	Answer func(asked time.Duration) string
	// Body is what is sent; a few bytes if it is empty.
	Body string
	// Any is whether an answer of any text will do, if its status is 200.
	Any bool
	// Rate is the number of requests begun a second, whether earlier ones have
	// been answered or not.
	Rate float64
	// Shortest and Longest bound the time that requests ask for; all between
	// come equally often.
	Shortest, Longest time.Duration
	// KeepAlive is the share of requests (0 to 1) that use kept connections; the
	// others each open one of their own.
	KeepAlive float64
	// Idle is how long a kept connection may be idle before the client closes it.
	Idle time.Duration
	// Patience is how long an answer may take beyond the time asked for.
	Patience time.Duration
}

// Counts tells what became of the requests so far.
type Counts struct {
	Requests int64            `json:"requests"` // that have ended, well or not
	Failed   int64            `json:"failed"`
	InFlight int64            `json:"in_flight"`
	Errors   map[string]int64 `json:"errors,omitempty"`  // failures by kind
	Samples  []Failure        `json:"samples,omitempty"` // the first failures
	Pods     map[string]int64 `json:"pods,omitempty"`    // answers by pod
	// The time of answers beyond what was asked for, in seconds.
	DelayMedian float64 `json:"delay_median_s"`
	DelayP99    float64 `json:"delay_p99_s"`
	DelayMax    float64 `json:"delay_max_s"`
}

// Failure is one request that failed.
type Failure struct {
	Begun     time.Time `json:"begun"`
	Seconds   float64   `json:"seconds"` // from its begin to its failure
	Asked     float64   `json:"asked_s"` // the time that it asked for
	KeepAlive bool      `json:"keep_alive"`
	Error     string    `json:"error"`
}

// Load is a load under way.
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

// Start begins the load, once the app can be reached: a Service begins to work
// some time after its pods are ready. It ends by Stop, or with ctx, which also
// breaks the requests in flight.
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

// reach waits until the app has answered some times in a row. These requests do
// not count. It returns false when the load is ended first.
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

// spread gives each i a number from 0 to 1: evenly, and always the same.
func spread(i int, irrational float64) float64 {
	_, fraction := math.Modf(float64(i) * irrational)
	return fraction
}

// onceReader has no other method, so that http.NewRequest cannot make a copy of
// the body to send it again.
type onceReader struct{ io.Reader }

// ask makes one request, and returns the name of the pod that answered; its
// address, where the app does not tell.
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

// kind is what failures have in common: the error without addresses.
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

// Counts tells what became of the requests so far.
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

// Finish begins no more requests; those in flight go on.
func (l *Load) Finish() { l.stopOnce.Do(func() { close(l.stop) }) }

// Stop begins no more requests, waits for those in flight, and returns the
// counts.
func (l *Load) Stop() Counts {
	l.Finish()
	<-l.ended
	return l.Counts()
}

// Answer is the app's side: it takes as long as the request asks for. It
// returns false if the client has gone away before.
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
