// A client with a steady load on the service web. It finds the pods in Consul as
// clients do: with a blocking query for those whose checks pass. SIGTERM ends the
// load; open requests are finished and counted.
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

// pods are the pods that Consul lists.
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
				log.Printf("asking Consul: %v", err) // keep using the last list
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
