// Package fleet is a Eureka server that answers like a server of a large fleet, to
// measure the cost of a drain. It counts calls, connections and bytes.
package fleet

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"
)

// Size is how many instances the pod's application has, including the pod, and how
// many all other applications have together.
type Size struct{ App, Others int }

// Call is one call that the server has answered.
type Call struct {
	At             time.Time
	What           string // the method and the resource, such as "GET apps as XML"
	Wire, Unpacked int    // bytes of the body
}

// Eureka is the server. Use Start to create one.
type Eureka struct {
	URL string // its service URL

	size  Size
	cache time.Duration
	port  int // of the pod's app

	mu          sync.Mutex // guards the fields below
	calls       []Call
	connections int
	pod         pod
	before      []pod // its earlier states
	answers     map[string]cached
}

// pod is the state of the pod's instance from a moment on.
type pod struct {
	status, override string
	updated          time.Time
	cancelled        bool
}

// asOf returns the state of the pod's instance at a time.
func (e *Eureka) asOf(at time.Time) pod {
	if !e.pod.updated.After(at) {
		return e.pod
	}
	for _, p := range slices.Backward(e.before) {
		if !p.updated.After(at) {
			return p
		}
	}
	return e.pod
}

func (e *Eureka) change(to pod) {
	e.before = append(e.before, e.pod)
	e.pod = to
}

// warm reports whether a fleet's clients ask for an answer all the time, so that
// each pass renews it. Other answers are renewed only after someone has asked for
// them.
func warm(name string) bool { return name == "apps as JSON" || name == "apps/delta as JSON" }

// cached is an answer in the response cache. One pass renews all of them.
type cached struct {
	pass          int64
	plain, zipped []byte
}

// Start starts the server. Its response cache is renewed at the interval cache. The
// pod's instance is at 127.0.0.1 and port. Call stop to end the server.
func Start(size Size, cache time.Duration, port int) (e *Eureka, stop func()) {
	e = &Eureka{size: size, cache: cache, port: port, pod: pod{status: "UP", override: "UNKNOWN", updated: time.Now().Add(-time.Hour)}, answers: map[string]cached{}}
	server := httptest.NewUnstartedServer(e)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.connections++
		}
	}
	server.Start()
	e.URL = server.URL + "/eureka"
	return e, server.Close
}

// Reset forgets all calls.
func (e *Eureka) Reset() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls, e.connections = nil, 0
}

// Calls returns the calls since Reset, and how many connections were opened since
// then.
func (e *Eureka) Calls() (calls []Call, connections int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Call(nil), e.calls...), e.connections
}

// ServeHTTP answers as Eureka does.
func (e *Eureka) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	path := strings.Split(strings.Trim(strings.TrimPrefix(r.URL.Path, "/eureka"), "/"), "/")
	kind := "JSON"
	if r.Header.Get("Accept") == "application/xml" {
		kind = "XML"
	}
	now := time.Now()
	switch {
	case r.Method == http.MethodPut:
		value := r.URL.Query().Get("value")
		e.change(pod{status: value, override: value, updated: now})
		e.note(now, "PUT status", 0, 0)
	case r.Method == http.MethodDelete:
		if e.pod.cancelled {
			w.WriteHeader(http.StatusNotFound)
		} else {
			e.change(pod{e.pod.status, e.pod.override, now, true})
		}
		e.note(now, "DELETE", 0, 0)
	case len(path) == 3:
		if e.pod.cancelled || path[2] != e.id() {
			e.note(now, "GET instance", 0, 0)
			w.WriteHeader(http.StatusNotFound)
			return
		}
		body := []byte(`{"instance":` + e.pod.json(e, "ORDERS", 0) + `}`)
		_, _ = w.Write(body)
		e.note(now, "GET instance", len(body), len(body))
	default:
		name := strings.Join(path, "/") + " as " + kind
		body := e.cached(name, now)
		out := body.plain
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			out = body.zipped
		}
		_, _ = w.Write(out)
		e.note(now, "GET "+name, len(out), len(body.plain))
	}
}

func (e *Eureka) note(at time.Time, what string, wire, unpacked int) {
	e.calls = append(e.calls, Call{at, what, wire, unpacked})
}

// cached returns an answer as of the last pass.
func (e *Eureka) cached(name string, now time.Time) cached {
	pass := now.UnixNano() / int64(e.cache)
	c, ok := e.answers[name]
	if ok && c.pass == pass {
		return c
	}
	asOf := now // nobody has asked for this before
	if ok || warm(name) {
		asOf = time.Unix(0, pass*int64(e.cache))
	}
	c = cached{pass: pass, plain: e.make(name, asOf)}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(c.plain) // writing to memory cannot fail
	_ = z.Close()
	c.zipped = zipped.Bytes()
	e.answers[name] = c
	return c
}

func (e *Eureka) id() string { return fmt.Sprintf("orders-0.cluster.local:orders:%d", e.port) }

// make creates a new answer.
func (e *Eureka) make(name string, at time.Time) []byte {
	p := e.asOf(at)
	what, kind, _ := strings.Cut(name, " as ")
	asXML := kind == "XML"
	all := []struct {
		name string
		n    int
	}{{"ORDERS", e.size.App}}
	root := "applications"
	switch what {
	case "apps":
		for left, n := e.size.Others, 0; left > 0; left, n = left-50, n+1 {
			all = append(all, struct {
				name string
				n    int
			}{fmt.Sprintf("SERVICE-%d", n), min(left, 50)})
		}
	case "apps/delta":
		all[0].n = 0
		if at.Sub(p.updated) < 3*time.Minute {
			all[0].n = 1
		}
	default:
		root = "application"
	}
	var out strings.Builder
	if asXML {
		p.xml(e, &out, root, all)
	} else {
		p.jsonList(e, &out, root, all)
	}
	return []byte(out.String())
}
