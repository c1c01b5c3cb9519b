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

// target is one instance of the pod: in one service, at one address.
type target struct {
	service service
	cluster string // as it is configured
	ip      netip.Addr
	port    int

	// What follows is guarded by the Registry's mutex.

	// as is how servers write the instance, once they have been seen to hold it.
	as naming
	// last is what a server has shown of it last; nil: nothing yet.
	last *sight
	// ephemeral is false of an instance that is kept for good; nil: not known.
	ephemeral *bool
	// tried is set when this process has begun to disable the instance, or found
	// its pod's mark, until it has been enabled again.
	tried bool
	// unmarked is set while the instance is disabled and not marked yet, and owner
	// is the mark that it gets; nil: its owner was not asked for yet.
	unmarked bool
	owner    *mark
	// Where the sidecar registers the instance: fresh is set while one that was
	// registered again has not been seen in service, and away once that of an app
	// that is not ready is deleted.
	fresh, away bool
	// lateUntil is how long a change whose answer never came may yet disable it.
	lateUntil time.Time
}

// sight is an instance as a server has shown it.
type sight struct {
	host
	enabled bool
	at      time.Time
}

const (
	// trustFor is how long a sight may be acted on without another look: within
	// it, somebody else has hardly changed the weight.
	trustFor = time.Minute
	// lateFor is how long a server may take to carry out what it was sent.
	lateFor = time.Minute
)

// naming is how requests name the instance.
type naming struct{ ip, cluster string }

func (t *target) query(grouped bool, as naming) url.Values {
	q := t.service.query(grouped)
	q.Set("ip", as.ip)
	q.Set("port", strconv.Itoa(t.port))
	// The calls of v1 and the PATCH of v2 call it cluster, all others clusterName.
	q.Set("clusterName", as.cluster)
	q.Set("cluster", as.cluster)
	return q
}

func (t *target) String() string {
	return fmt.Sprintf("%s of %s in cluster %s, namespace %s",
		net.JoinHostPort(t.ip.String(), strconv.Itoa(t.port)), t.service.grouped(), t.cluster, t.service.namespace)
}

// isListed reports whether an instance of a list is the target's, in whatever
// cluster, and available.
func (t *target) isListed(h host) bool { return h.isAt(t.ip, t.port) && h.available() }

// namings are the ways in which servers may know the instance: the one that was
// seen, or else each notation of its address. Servers compare addresses as texts,
// and Java writes those of IPv6 in full.
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

// naming is how servers know the instance, as far as that is known.
func (r *Registry) naming(t *target) naming { return r.namings(t)[0] }

// learn books what an answer shows of the instance, and returns it with what is
// known from earlier ones.
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

// look reads the instance at a server, and whether it is enabled, which the
// instance itself does not say before v3: the list that clients get shows it.
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
		enabled = *h.Enabled // an upgrade has come between
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

// lookAtAll is look with v3. Where the instance is not known as it was named, it
// may be under another notation, or in another cluster: all are gone through.
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

// setEnabled enables or disables an instance, and books that, and what may yet
// come of it where there was no answer.
func (r *Registry) setEnabled(ctx context.Context, s *server, t *target, h host, enabled bool) (found bool, err error) {
	if !enabled {
		r.setTried(t, true) // from here on it may be disabled, whatever is answered
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

// begun returns the instance if this process has disabled it a moment ago and has
// yet to mark it.
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
