// Steady load on the application ORDERS, whose pods the client finds in Eureka
// as clients do: it fetches everything every two seconds, and trusts its copy in
// between. SIGTERM ends the load; requests on their way are finished, and then
// counted.
package main

import (
	"context"
	"encoding/json"
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
)

const (
	// workers is how many requests are on their way at any time.
	workers = 12
	// refresh is how long the client uses its copy of the registry.
	refresh = 2 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	l := load{eureka: os.Getenv("EUREKA_URL"), failures: map[string]int{}, http: &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: workers},
	}}
	var running sync.WaitGroup
	running.Go(func() { l.discover(ctx) })
	for range workers {
		running.Go(func() { l.work(ctx) })
	}
	running.Wait()
	stop()
	if l.count() > 0 {
		os.Exit(1)
	}
}

type load struct {
	eureka   string // the service URL
	http     *http.Client
	pods     atomic.Pointer[[]string] // host:port of those that Eureka tells of
	mu       sync.Mutex
	answered int
	failures map[string]int // by kind
}

// discover keeps the list of pods up to date until ctx ends.
func (l *load) discover(ctx context.Context) {
	for ctx.Err() == nil {
		pods, err := l.fetch(ctx)
		switch {
		case err == nil:
			l.pods.Store(&pods)
		case ctx.Err() == nil:
			log.Printf("asking Eureka: %v", err) // the last copy has to do
		}
		pause(ctx, refresh)
	}
}

// fetch asks for everything, and returns the pods that are UP.
func (l *load) fetch(ctx context.Context) ([]string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, l.eureka+"/apps/", http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	response, err := l.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var all struct {
		Applications struct {
			Application []struct {
				Name     string
				Instance []struct {
					IPAddr, Status string
					Port           struct {
						Number int `json:"$"`
					}
				}
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&all); err != nil {
		return nil, err
	}
	var pods []string
	for _, app := range all.Applications.Application {
		for _, i := range app.Instance {
			if app.Name == "ORDERS" && i.Status == "UP" {
				pods = append(pods, net.JoinHostPort(i.IPAddr, strconv.Itoa(i.Port.Number)))
			}
		}
	}
	return pods, nil
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
	ms := strconv.Itoa(100 + rand.IntN(1900)) //nolint:gosec // any will do
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+pod+"/work?ms="+ms, strings.NewReader("an order"))
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
