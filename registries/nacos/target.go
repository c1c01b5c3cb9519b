package nacos

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
)

// target is one instance of the pod: in one service, at one address.
type target struct {
	service service
	cluster string
	ip      netip.Addr
	port    int
	text    string // the address as this process would write it

	// What follows is guarded by the Registry's mutex.

	// as is how servers write the address, once they have been seen to list it.
	as string
	// ephemeral is false of an instance that is kept for good; nil: not known.
	ephemeral *bool
	// tried is set when this process has begun to disable the instance, or found
	// its pod's mark, until it has been enabled again.
	tried bool
}

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

// naming is how servers know the instance.
func (r *Registry) naming(t *target) naming {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.as != "" {
		return naming{t.as, t.cluster}
	}
	return naming{t.text, t.cluster}
}

// learn books what an answer shows of the instance.
func (r *Registry) learn(t *target, h host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.located = true
	t.as = h.IP
	if h.Ephemeral != nil {
		t.ephemeral = h.Ephemeral
	}
}

// look reads the instance at a server, and whether it is enabled, which answers
// of v1 and v2 do not say: the list that clients get shows it.
func (r *Registry) look(ctx context.Context, s *server, t *target) (h host, enabled, found bool, err error) {
	as := r.naming(t)
	h, found, err = s.detail(ctx, t, as)
	if err != nil {
		return h, false, false, err
	}
	if found && h.Enabled != nil {
		r.learn(t, h)
		return r.withEphemeral(t, h), *h.Enabled, true, nil
	}
	var listed host
	isListed := false
	if _, err := s.list(ctx, t.service, func(one host) {
		if t.isListed(one) {
			listed, isListed = one, true
		}
	}); err != nil {
		return h, false, false, err
	}
	switch {
	case !isListed && !found:
		return h, false, false, nil
	case !isListed:
		h.IP = as.ip
		r.learn(t, h)
		return r.withEphemeral(t, h), false, true, nil
	case listed.Cluster != "" && listed.Cluster != t.cluster:
		return h, false, false, fmt.Errorf("%v: it is registered in cluster %s: set LASTCALL_NACOS_CLUSTER=%[2]s", t, listed.Cluster)
	}
	r.learn(t, listed)
	return r.withEphemeral(t, listed), true, true, nil
}

func (r *Registry) withEphemeral(t *target, h host) host {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h.Ephemeral == nil {
		h.Ephemeral = t.ephemeral
	}
	return h
}
