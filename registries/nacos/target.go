package nacos

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// target is one instance of the pod: in one service, at one address and port.
type target struct {
	service service
	cluster string // as configured
	ip      netip.Addr
	port    int

	// The following fields are guarded by the Registry's mutex.

	// as is the notation that servers use for the instance, once it was seen.
	as naming
	// last is the instance as a server last showed it; nil: not shown yet.
	last *sight
	// ephemeral is false for a persistent instance; nil: not known.
	ephemeral *bool
	// tried is set when this process has begun to disable the instance, or has
	// found its pod's mark. It is cleared when the instance has been enabled
	// again.
	tried bool
	// unmarked is set while the instance is disabled but has no mark yet. owner
	// is the mark that it will get; nil: the owner has not been read yet.
	unmarked bool
	owner    *mark
	// These are used if the sidecar registers the instance. fresh is set while
	// an instance that was registered again has not been seen in service. away
	// is set once the instance of an app that is not ready has been deleted.
	fresh, away bool
	// lateUntil is how long a change that got no answer may still disable it.
	lateUntil time.Time
}

// sight is an instance as a server showed it.
type sight struct {
	host
	enabled bool
	at      time.Time
}

const (
	// trustFor is how long a sight may be used without reading the instance
	// again: somebody else is unlikely to change the weight within that time.
	trustFor = time.Minute
	// lateFor is how long a server may take to carry out a request.
	lateFor = time.Minute
)

// naming is how requests identify the instance.
type naming struct{ ip, cluster string }

func (t *target) query(grouped bool, as naming) url.Values {
	q := t.service.query(grouped)
	q.Set("ip", as.ip)
	q.Set("port", strconv.Itoa(t.port))
	// v1 and the PATCH of v2 use the parameter cluster, all other calls
	// clusterName.
	q.Set("clusterName", as.cluster)
	q.Set("cluster", as.cluster)
	return q
}

func (t *target) String() string {
	return fmt.Sprintf("%s of %s in cluster %s, namespace %s",
		net.JoinHostPort(t.ip.String(), strconv.Itoa(t.port)), t.service.grouped(), t.cluster, t.service.namespace)
}

// isListed reports whether the list entry h is the target's instance, in any
// cluster, and available.
func (t *target) isListed(h host) bool { return h.isAt(t.ip, t.port) && h.available() }

// namings returns the possible names of the instance at servers: the one that
// was seen, or otherwise each notation of its address. Servers compare
// addresses as text, and Java writes IPv6 addresses in full.
func (r *Registry) namings(t *target) []naming {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.as.ip != "" {
		return []naming{t.as}
	}
	texts := []string{t.ip.String()}
	if t.ip.Is6() {
		b := t.ip.As16()
		long := ""
		for n := 0; n < len(b); n += 2 {
			long += ":" + strconv.FormatUint(uint64(binary.BigEndian.Uint16(b[n:])), 16)
		}
		texts = append(texts, long[1:], "["+texts[0]+"]", "["+long[1:]+"]")
	}
	var all []naming
	for _, text := range texts {
		all = append(all, naming{text, t.cluster})
	}
	return all
}

// naming returns the name of the instance at servers, as far as it is known.
func (r *Registry) naming(t *target) naming { return r.namings(t)[0] }

// learn records an answer about the instance. It returns h, completed with what
// earlier answers showed.
func (r *Registry) learn(t *target, h host, enabled bool) host {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.located = true
	if t.as.ip == "" {
		t.as = naming{cluster: t.cluster}
	}
	t.as.ip = h.IP
	if h.Cluster != "" {
		t.as.cluster = h.Cluster
	}
	if h.Ephemeral != nil {
		t.ephemeral = h.Ephemeral
	}
	h.Ephemeral = t.ephemeral
	t.last = &sight{h, enabled, r.now()}
	return h
}

// recent returns the instance if it was seen in service a moment ago.
func (r *Registry) recent(t *target) (host, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.last == nil || !t.last.enabled || r.now().Sub(t.last.at) > trustFor {
		return host{}, false
	}
	return t.last.host, true
}

// look reads the instance at a server, and whether it is enabled. Before v3 the
// instance itself does not show that: only the list that clients get does.
func (r *Registry) look(ctx context.Context, s *server, t *target) (h host, enabled, found bool, err error) {
	v, err := s.ready(ctx, t.service)
	if err != nil {
		return h, false, false, err
	}
	as := r.namings(t)
	if v == v3 {
		return r.lookAtAll(ctx, s, t, as[0])
	}
	var listed host
	var isListed bool
	var listErr error
	var running sync.WaitGroup
	running.Go(func() {
		_, listErr = s.list(ctx, t.service, false, func(one host) {
			if t.isListed(one) {
				listed, isListed = one, true
			}
		})
	})
	for _, a := range as {
		if h, found, err = s.detail(ctx, t, a); err != nil || found {
			if h.IP == "" {
				h.IP = a.ip
			}
			break
		}
	}
	running.Wait()
	switch {
	case err != nil:
	case found && h.Enabled != nil:
		enabled = *h.Enabled // the server was upgraded meanwhile
		h = r.learn(t, h, enabled)
	case listErr != nil:
		err = listErr
	case isListed:
		h, enabled, found = r.learn(t, listed, true), true, true
	case found:
		h = r.learn(t, h, false)
	}
	return h, enabled, found, err
}

// lookAtAll is look for v3. If the instance is not found under this name, it
// may be registered in another notation or in another cluster: lookAtAll
// searches all instances.
func (r *Registry) lookAtAll(ctx context.Context, s *server, t *target, as naming) (h host, enabled, found bool, err error) {
	h, found, err = s.detail(ctx, t, as)
	if err == nil && !found {
		_, err = s.list(ctx, t.service, true, func(one host) {
			if one.isAt(t.ip, t.port) && (!found || one.available()) {
				h, found = one, true
			}
		})
	}
	if err != nil || !found {
		return h, false, false, err
	}
	if h.IP == "" {
		h.IP = as.ip
	}
	enabled = h.available()
	return r.learn(t, h, enabled), enabled, true, nil
}

// setEnabled enables or disables an instance and records that. If there was no
// answer, it records that the change may still take effect.
func (r *Registry) setEnabled(ctx context.Context, s *server, t *target, h host, enabled bool) (found bool, err error) {
	if !enabled {
		r.setTried(t, true) // from here on it may be disabled, whatever the answer is
	}
	found, err = s.setEnabled(ctx, t, r.naming(t), h, enabled)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil && !enabled:
		t.lateUntil = r.now().Add(lateFor)
	case err == nil && found && t.last != nil:
		t.last.enabled, t.last.at = enabled, r.now()
		t.unmarked, t.owner = !enabled, nil
		t.tried = !enabled
	case err == nil:
		t.last = nil
	}
	return found, err
}

// begun returns the instance if this process disabled it a moment ago and has
// not set its mark yet.
func (r *Registry) begun(t *target) (host, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.last == nil || t.last.enabled || !t.unmarked || r.now().Sub(t.last.at) > trustFor {
		return host{}, false
	}
	return t.last.host, true
}

func (r *Registry) wasTried(t *target) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return t.tried || r.now().Before(t.lateUntil)
}

func (r *Registry) setTried(t *target, tried bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.tried = tried
}
