// Steady load on the service web, whose pods the client finds in Consul as
// clients do: by a blocking query for those whose checks pass. SIGTERM ends
// the load; requests on their way are finished, and then counted.
package main

import (
	"context"
	"log"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/examples/load"
)

func main() {
	consul, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		log.Fatal(err)
	}
	p := pods{consul: consul}
	(&load.Load{Workers: 24, Target: p.any, Beside: p.discover}).Main()
}

// pods are those that Consul tells of.
type pods struct {
	consul *api.Client
	urls   atomic.Pointer[[]string]
}

func (p *pods) any() string {
	if urls := p.urls.Load(); urls != nil {
		return load.Any(*urls)
	}
	return ""
}

// discover keeps the list up to date until ctx ends.
func (p *pods) discover(ctx context.Context) {
	query := &api.QueryOptions{}
	for ctx.Err() == nil {
		entries, meta, err := p.consul.Health().Service("web", "", true, query.WithContext(ctx))
		if err != nil {
			if ctx.Err() == nil {
				log.Printf("asking Consul: %v", err) // the last list has to do
			}
			load.Pause(ctx, time.Second)
			continue
		}
		var urls []string
		for _, e := range entries {
			urls = append(urls, "http://"+net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port))+"/")
		}
		p.urls.Store(&urls)
		query.WaitIndex = meta.LastIndex
	}
}
