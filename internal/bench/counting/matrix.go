// Package counting measures how often a drain ends too early, with a request in
// flight, and how often it waits needlessly, when the work in flight is counted
// from the kernel's sockets. It uses real servers, real clients and the program
// itself.
//
// Servers and sidecars share a network namespace, as the containers of a pod do.
// Clients are in the same namespace, or in another one that packets reach 0.3 ms
// later.
package counting

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Run is one drain, described by the app's server, a client, and the requests in
// flight.
type Run struct {
	Server  string        `json:"server"`
	TLS     bool          `json:"tls"`
	Client  string        `json:"client"`
	Request time.Duration `json:"request"` // how long the measured request takes
	Hook    time.Duration `json:"hook"`    // how long after the request's start the hook is called
	History bool          `json:"history"` // the client has made similar requests for a while
	Far     bool          `json:"far"`     // the client is in another network namespace
}

// The servers of the matrix. patternServer stands for the server of each pattern.
const (
	patternServer = "pattern"
	goServer      = "go"
)

// The clients of the matrix.
const (
	fresh      = "fresh"
	kept       = "kept"
	backToBack = "back to back"
	// With TLS only.
	freshTLS12   = "fresh, TLS 1.2"
	resumed      = "fresh, session resumed"
	resumedTLS12 = "fresh, session resumed, TLS 1.2"
	byNginx      = "pooled by nginx"
	byHAProxy    = "pooled by HAProxy"
	idlePool     = "idle pool" // nothing is in flight
	webSocket    = "WebSocket"
	http2Streams = "HTTP/2"
	grpcSilent   = "gRPC"
	grpcPinging  = "gRPC with pings"
	grpcStream   = "gRPC stream with a pause"
	grpcOverlap  = "gRPC, calls side by side"
	grpcIdle     = "30 gRPC clients with pings, idle" // nothing is in flight
)

// httpServers are the servers of the matrix that speak HTTP/1, and whether they
// speak WebSocket here.
func httpServers() []struct {
	name       string
	webSockets bool
} {
	return []struct {
		name       string
		webSockets bool
	}{
		{goServer, true},
		{"node", false},
		{"tomcat", true},
		{"netty", false},
		{"uvicorn", true},
		{"gunicorn", false},
		{"nginx", true},
		{"haproxy", true},
		{"php", false},
	}
}

// http2Servers support HTTP/2 in addition to HTTP/1. nginx without TLS supports only
// HTTP/2.
func http2Servers() []string { return []string{"node-h2", "tomcat-h2", "nginx-h2", "haproxy-h2"} }

func grpcServers() []string { return []string{"grpc-go", "grpcio"} }

// Matrix returns all runs. The order is always the same, and each part of it has
// some runs of every kind.
func Matrix() []Run {
	var runs []Run
	times := func(r Run, requests ...time.Duration) {
		for _, r.Request = range requests {
			for _, r.Hook = range []time.Duration{time.Second, 6 * time.Second} {
				for _, r.History = range []bool{false, true} {
					for _, r.Far = range []bool{false, true} {
						runs = append(runs, r)
					}
				}
			}
		}
	}
	lengths := []time.Duration{200 * time.Millisecond, 8 * time.Second, 20 * time.Second}
	for _, tls := range []bool{false, true} {
		for _, s := range httpServers() {
			clients := []string{fresh, kept, backToBack, byNginx, byHAProxy}
			if s.webSockets {
				clients = append(clients, webSocket)
			}
			for _, client := range clients {
				times(Run{Server: s.name, TLS: tls, Client: client}, lengths...)
			}
			times(Run{Server: s.name, TLS: tls, Client: idlePool}, 0)
			if tls {
				for _, client := range []string{freshTLS12, resumed, resumedTLS12} {
					times(Run{Server: s.name, TLS: tls, Client: client}, 8*time.Second)
				}
			}
		}
		for _, server := range http2Servers() {
			times(Run{Server: server, TLS: tls, Client: http2Streams}, lengths[1:]...)
			if tls {
				times(Run{Server: server, TLS: tls, Client: kept}, lengths[1:]...)
			}
		}
		for _, server := range grpcServers() {
			for _, client := range []string{grpcSilent, grpcPinging} {
				times(Run{Server: server, TLS: tls, Client: client}, lengths...)
			}
			times(Run{Server: server, TLS: tls, Client: grpcStream}, lengths[1:]...)
			times(Run{Server: server, TLS: tls, Client: grpcOverlap}, lengths[1:]...)
			times(Run{Server: server, TLS: tls, Client: grpcIdle}, 0)
		}
	}
	for _, p := range patterns() {
		for _, length := range p.lengths {
			times(Run{Server: patternServer, TLS: p.tls, Client: p.name}, length)
		}
	}
	order, names := make(map[Run]uint64, len(runs)), make(map[Run]string, len(runs))
	for _, r := range runs {
		names[r] = r.String()
		order[r] = scatter(names[r])
	}
	slices.SortFunc(runs, func(a, b Run) int {
		return cmp.Or(cmp.Compare(order[a], order[b]), cmp.Compare(names[a], names[b]))
	})
	return runs
}

// String returns the run's name. -counting.match matches it.
func (r *Run) String() string {
	words := []string{r.Server, "cleartext", r.Client, r.Request.String(), "hook " + r.Hook.String(), "young", "loopback"}
	if r.TLS {
		words[1] = "TLS"
	}
	if r.History {
		words[5] = "history"
	}
	if r.Far {
		words[6] = "0.3ms"
	}
	return strings.Join(words, "/")
}

// scatter returns a number that is unrelated to the meaning of the name.
func scatter(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	// The last bytes of the name influence the higher bits too little.
	n := h.Sum64()
	n ^= n >> 33
	n *= 0xff51afd7ed558ccd
	return n ^ n>>33
}

// Select returns the first most runs whose names match, or all of them if most is
// 0.
func Select(match string, most int) ([]Run, error) {
	pattern, err := regexp.Compile(match)
	if err != nil {
		return nil, fmt.Errorf("-counting.match: %w", err)
	}
	runs := slices.DeleteFunc(Matrix(), func(r Run) bool { return !pattern.MatchString(r.String()) })
	if most > 0 && most < len(runs) {
		runs = runs[:most]
	}
	if len(runs) == 0 {
		return nil, fmt.Errorf("-counting.match: no run of the matrix matches %q", match)
	}
	return runs, nil
}

// lasts returns an estimate of how long the run takes.
func (r *Run) lasts() time.Duration {
	d := settle + r.Hook + max(r.Request-r.Hook, 0) + needlessAfter/2
	if r.History {
		d += historyLasts + r.Request
	}
	return d
}
