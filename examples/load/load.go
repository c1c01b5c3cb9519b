// Package load generates and counts the steady load of the examples.
package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Load has workers that each send one request after the other.
type Load struct {
	Workers int
	// Target returns the address for the next request, or "" if there is currently
	// no target.
	Target func() (url string)
	// Body is the body of each request; by default an order.
	Body string
	// Beside runs concurrently with the workers until ctx ends; it may be nil.
	Beside func(ctx context.Context)

	mu       sync.Mutex
	answered int
	failures map[string]int // by kind
}

// Main runs the load until SIGTERM, finishes the open requests, prints the counts
// and ends the process. The exit code is 1 if a request has failed.
func (l *Load) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	l.failures = map[string]int{}
	client := &http.Client{
		Timeout: 20 * time.Second,
		// The other side may close a connection that has been idle for longer at
		// the very moment when it is reused.
		Transport: &http.Transport{MaxIdleConnsPerHost: l.Workers, IdleConnTimeout: time.Second},
	}
	var running sync.WaitGroup
	for range l.Workers {
		running.Go(func() { l.work(ctx, client) })
	}
	running.Go(func() { l.tell(ctx) })
	if l.Beside != nil {
		running.Go(func() { l.Beside(ctx) })
	}
	running.Wait()
	stop()
	count, failed := l.count()
	fmt.Println(count) //nolint:forbidigo // the program's output
	for _, what := range slices.Sorted(maps.Keys(l.failures)) {
		fmt.Printf("  %4d × %s\n", l.failures[what], what) //nolint:forbidigo // the program's output
	}
	if failed > 0 {
		os.Exit(1)
	}
}

// Any returns one of addresses, or nothing if there are none.
func Any(addresses []string) string {
	if len(addresses) == 0 {
		return ""
	}
	return addresses[rand.IntN(len(addresses))] //nolint:gosec // not for security
}

// Pause waits for d, or until ctx ends.
func Pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (l *Load) work(ctx context.Context, client *http.Client) {
	for ctx.Err() == nil {
		url := l.Target()
		if url == "" {
			Pause(ctx, 50*time.Millisecond)
			continue
		}
		err := post(context.WithoutCancel(ctx), client, url, cmp.Or(l.Body, "an order")) // an open request is finished
		l.mu.Lock()
		if err == nil {
			l.answered++
		} else {
			l.failures[kind(err)]++
		}
		l.mu.Unlock()
		if err != nil {
			Pause(ctx, 100*time.Millisecond)
		}
	}
}

// post sends a request that is never retried, because nobody knows what the first
// attempt has done. Without GetBody, Go's client cannot retry it.
func post(ctx context.Context, client *http.Client, url, body string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, io.LimitReader(strings.NewReader(body), int64(len(body))))
	if err != nil {
		return err
	}
	request.ContentLength = int64(len(body))
	request.Close = rand.IntN(4) == 0 //nolint:gosec // one in four uses its own connection
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New("answered " + response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// tell logs the counts every two seconds.
func (l *Load) tell(ctx context.Context) {
	for {
		Pause(ctx, 2*time.Second)
		if ctx.Err() != nil {
			return
		}
		count, _ := l.count()
		log.Print(count)
	}
}

func (l *Load) count() (text string, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.failures {
		failed += n
	}
	return fmt.Sprintf("%d requests, %d failed", l.answered+failed, failed), failed
}

// kind returns an error's text without addresses.
func kind(err error) string {
	text := err.Error()
	return text[strings.LastIndex(text, ": ")+1:]
}
