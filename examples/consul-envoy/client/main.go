// Steady load on the service web, whose pods the client finds in Consul as
// clients do: by a blocking query for those whose checks pass. SIGTERM ends
// the load; requests on their way are finished, and then counted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
)

// workers is how many requests are on their way at any time.
const workers = 24

func main() {
	failed, err := run()
	if err != nil {
		log.Fatal(err)
	}
	if failed > 0 {
		os.Exit(1)
	}
}

// run returns how many requests have failed.
func run() (failed int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	consul, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return 0, err
	}
	l := load{failures: map[string]int{}, http: &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: workers},
	}}
	var running sync.WaitGroup
	running.Go(func() { l.discover(ctx, consul) })
	for range workers {
		running.Go(func() { l.work(ctx) })
	}
	running.Wait()
	return l.count(), nil
}

type load struct {
	http     *http.Client
	pods     atomic.Pointer[[]string] // host:port of those that Consul tells of
	mu       sync.Mutex
	answered int
	failures map[string]int // by kind
}

// discover keeps the list of pods up to date until ctx ends.
func (l *load) discover(ctx context.Context, consul *api.Client) {
	query := &api.QueryOptions{}
	for ctx.Err() == nil {
		entries, meta, err := consul.Health().Service("web", "", true, query.WithContext(ctx))
		if err != nil {
			pause(ctx, time.Second) // the last list has to do
			continue
		}
		var pods []string
		for _, e := range entries {
			pods = append(pods, net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port)))
		}
		l.pods.Store(&pods)
		query.WaitIndex = meta.LastIndex
	}
}

// work sends one request after the other until ctx ends.
func (l *load) work(ctx context.Context) {
	for ctx.Err() == nil {
		pods := l.pods.Load()
		if pods == nil || len(*pods) == 0 {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		// A request that was begun is finished. It is a POST: one that fails
		// must not be sent again, since nobody knows what it has done.
		err := l.post(context.WithoutCancel(ctx), (*pods)[rand.IntN(len(*pods))]) //nolint:gosec // any pod will do
		l.mu.Lock()
		if err == nil {
			l.answered++
		} else {
			l.failures[kind(err)]++
		}
		l.mu.Unlock()
		if err != nil {
			pause(ctx, 100*time.Millisecond)
		}
	}
}

func (l *load) post(ctx context.Context, pod string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+pod+"/", strings.NewReader("an order"))
	if err != nil {
		return err
	}
	response, err := l.http.Do(request)
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

// count prints what came of it, and returns how many requests have failed.
func (l *load) count() int {
	failed := 0
	for _, n := range l.failures {
		failed += n
	}
	fmt.Printf("%d requests, %d failed\n", l.answered+failed, failed) //nolint:forbidigo // a program's output
	for what, n := range l.failures {
		fmt.Printf("  %4d × %s\n", n, what) //nolint:forbidigo // a program's output
	}
	return failed
}

// kind is an error without its addresses.
func kind(err error) string {
	text := err.Error()
	return text[strings.LastIndex(text, ": ")+1:]
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
