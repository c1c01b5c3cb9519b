// A client with a steady load on the application ORDERS. It finds the pods in
// Eureka as clients do: it fetches everything every two seconds, and uses its copy
// in between. SIGTERM ends the load; open requests are finished and counted.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"lastcall/examples/load"
)

// refresh is how long the client uses its copy of the registry.
const refresh = 2 * time.Second

func main() {
	p := pods{eureka: os.Getenv("EUREKA_URL"), http: &http.Client{Timeout: 10 * time.Second}}
	(&load.Load{Workers: 12, Target: p.any, Beside: p.discover}).Main()
}

// pods are the pods that Eureka lists.
type pods struct {
	eureka string // the service URL
	http   *http.Client
	urls   atomic.Pointer[[]string]
}

func (p *pods) any() string {
	urls := p.urls.Load()
	if urls == nil || len(*urls) == 0 {
		return ""
	}
	ms := 100 + rand.IntN(1900) //nolint:gosec // not for security
	return fmt.Sprintf("%s/work?ms=%d", load.Any(*urls), ms)
}

// discover keeps the list up to date until ctx ends.
func (p *pods) discover(ctx context.Context) {
	for ctx.Err() == nil {
		urls, err := p.fetch(ctx)
		switch {
		case err == nil:
			p.urls.Store(&urls)
		case ctx.Err() == nil:
			log.Printf("asking Eureka: %v", err) // keep using the last copy
		}
		load.Pause(ctx, refresh)
	}
}

// fetch fetches everything, and returns the pods that are UP.
func (p *pods) fetch(ctx context.Context) ([]string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.eureka+"/apps/", http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	response, err := p.http.Do(request)
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
	var urls []string
	for _, app := range all.Applications.Application {
		for _, i := range app.Instance {
			if app.Name == "ORDERS" && i.Status == "UP" {
				urls = append(urls, "http://"+net.JoinHostPort(i.IPAddr, strconv.Itoa(i.Port.Number)))
			}
		}
	}
	return urls, nil
}
