package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lastcall/e2e/load"
)

// discover sends requests to the pods that a registry lists. Each of its clients has a
// cached copy of the list and uses it until the next refresh. Each request is made by
// the next client, to the next pod in its copy.
func discover(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("discover", flag.ExitOnError)
	address := flags.String("listen", ":8080", "address of the server for the counts")
	config := loadFlags(flags)
	consul := flags.String("consul", "", "http://HOST:8500")
	eureka := flags.String("eureka", "", "service URL, http://HOST:8761/eureka")
	name := flags.String("name", "web", "the service or application")
	refresh := flags.Duration("refresh", 5*time.Second, "how long a client uses its copy")
	count := flags.Int("clients", 5, "how many clients there are")
	milliseconds := flags.Bool("milliseconds", false, "the app answers as examples/eureka-spring does")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var read func(context.Context) ([]string, error)
	switch {
	case *consul != "":
		read = func(ctx context.Context) ([]string, error) { return consulTells(ctx, *consul, *name) }
	case *eureka != "":
		read = func(ctx context.Context) ([]string, error) { return eurekaTells(ctx, *eureka, *name) }
	default:
		return errors.New("-consul or -eureka has to be set")
	}
	clients := make([]*copyOf, *count)
	for i := range clients {
		clients[i] = &copyOf{read: read, refresh: *refresh, renewed: make(chan struct{})}
		// The clients refresh at different times.
		go clients[i].keep(ctx, *refresh*time.Duration(i)/time.Duration(*count))
	}
	var next atomic.Int64
	config.Target = func(ctx context.Context) (string, error) {
		return clients[next.Add(1)%int64(len(clients))].next(ctx)
	}
	if *milliseconds {
		config.Answer = func(asked time.Duration) string { return fmt.Sprintf("done in %d ms\n", asked.Milliseconds()) }
	}
	return tellCounts(ctx, *address, load.Start(ctx, *config))
}

// copyOf is one client's cached copy of the registry's list.
type copyOf struct {
	read    func(context.Context) ([]string, error)
	refresh time.Duration

	mu      sync.Mutex
	pods    []string      // HOST:PORT
	asked   time.Time     // when the registry was asked for them
	renewed chan struct{} // closed at the next renewal
	turn    int
}

// keep refreshes the copy until ctx ends: at once, after the delay, and then at the
// interval refresh.
func (c *copyOf) keep(ctx context.Context, delay time.Duration) {
	c.renew(ctx)
	first := time.NewTimer(delay)
	defer first.Stop()
	select {
	case <-first.C:
	case <-ctx.Done():
		return
	}
	again := time.NewTicker(c.refresh)
	defer again.Stop()
	for {
		c.renew(ctx)
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// renew refreshes the copy. If the registry does not answer, the old copy stays.
func (c *copyOf) renew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.refresh)
	defer cancel()
	asked := time.Now()
	pods, err := c.read(ctx)
	if err != nil {
		slog.Warn("the copy stays as it is", "error", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pods, c.asked = pods, asked
	close(c.renewed)
	c.renewed = make(chan struct{})
}

// next returns the URL of the next pod in the copy. If the copy is older than refresh,
// next waits for the next refresh: on a busy machine it may be late, but Lastcall relies
// on the configured time.
func (c *copyOf) next(ctx context.Context) (string, error) {
	c.mu.Lock()
	for time.Since(c.asked) > c.refresh {
		renewed := c.renewed
		c.mu.Unlock()
		select {
		case <-renewed:
		case <-ctx.Done():
			return "", errors.New("the registry has not answered in time")
		}
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	if len(c.pods) == 0 {
		return "", errors.New("the registry lists no pod")
	}
	c.turn++
	return "http://" + c.pods[c.turn%len(c.pods)] + "/work", nil
}

// consulTells returns the addresses of the instances with passing checks.
func consulTells(ctx context.Context, consul, service string) ([]string, error) {
	var entries []struct {
		Service struct {
			Address string
			Port    int
		}
	}
	if err := fetchJSON(ctx, http.MethodGet, consul+"/v1/health/service/"+service+"?passing", nil, &entries); err != nil {
		return nil, err
	}
	var pods []string
	for _, e := range entries {
		pods = append(pods, net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port)))
	}
	return pods, nil
}

// eurekaTells returns the addresses of the instances that are UP. Like Eureka's own
// client, it requests all applications.
func eurekaTells(ctx context.Context, eureka, name string) ([]string, error) {
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
	if err := fetchJSON(ctx, http.MethodGet, eureka+"/apps/", nil, &all); err != nil {
		return nil, err
	}
	var pods []string
	for _, app := range all.Applications.Application {
		for _, i := range app.Instance {
			if strings.EqualFold(app.Name, name) && i.Status == "UP" {
				pods = append(pods, net.JoinHostPort(i.IPAddr, strconv.Itoa(i.Port.Number)))
			}
		}
	}
	return pods, nil
}
