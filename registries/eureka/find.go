package eureka

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lastcall/drain"
)

// sighting is an instance of the pod as one peer holds it.
type sighting struct {
	peer *peer
	name name
	*seen
}

// Find looks up the pod's instances at every peer. It returns the name and the
// status under which the peers hold them.
//
// It removes an override that is older than the present registration. An
// earlier pod with the same id leaves such an override behind when its drain is
// cut short: servers store overrides by id, for an hour. An override that is
// newer was set by somebody on purpose and stays, and so does one that Withdraw
// has set since the last Restore. A registration that inherits an override
// leaves ADDED as the instance's last action; a status that is set after it
// leaves MODIFIED. A peer to which a registration was replicated also shows
// ADDED. So an override counts as a leftover only if no peer that holds the
// present registration contradicts that.
//
// Find also cleans up what is left of an override that has just been removed.
//
// It returns an error if no reachable peer holds the instance; the error gives
// the setting that is needed. It also returns an error if the instance is
// withdrawn and registered at another address than the pod's: it is not known
// yet whether that withdrawal is a leftover.
func (r *Registry) Find(ctx context.Context) (string, error) {
	var mu sync.Mutex
	var sightings []sighting
	err := r.atPeers(ctx, func(ctx context.Context, p *peer) error {
		return r.forOwn(ctx, p, true, func(n name) error {
			i, err := p.instance(ctx, n)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			sightings = append(sightings, sighting{p, n, &i})
			r.sawBefore(sighting{p, n, &i})
			return nil
		})
	})
	if len(sightings) == 0 {
		if err == nil {
			err = r.notFound(ctx)
		}
		return "", err
	}
	slices.SortFunc(sightings, func(a, b sighting) int {
		return slices.Index(r.peers, a.peer) - slices.Index(r.peers, b.peer)
	})
	var names []name
	for _, s := range sightings {
		if !slices.Contains(names, s.name) {
			names = append(names, s.name)
		}
	}

	r.searchNamesakes(ctx, names)

	var told []string
	for _, n := range names {
		of := slices.DeleteFunc(slices.Clone(sightings), func(s sighting) bool { return s.name != n })
		text, err := r.clear(ctx, of)
		if err != nil {
			return "", err
		}
		told = append(told, r.describe(of)+text+r.warnOfNamesakes(n))
	}
	if err != nil {
		told = append(told, err.Error())
	}
	return strings.Join(told, "; "), nil
}

// clear removes what wrongly keeps one instance out of service, and returns a
// text about it.
func (r *Registry) clear(ctx context.Context, of []sighting) (string, error) {
	switch {
	case r.hasResidue(of):
		return ", left over from a withdrawal that has ended; set again", r.clearResidue(ctx, of)
	case !slices.ContainsFunc(of, func(s sighting) bool { return s.overridden() }):
		return "", nil
	case r.isLeftover(of):
		return ", left behind by an earlier instance of this id; removed", r.clearLeftover(ctx, of)
	case len(r.ips) > 0 && !slices.ContainsFunc(of, func(s sighting) bool { return s.hasIP(r.ips) }):
		return "", fmt.Errorf("%s, but registered at %s, not at this pod's %s: it is an earlier pod's until the app registers", r.describe(of), of[0].IP, addresses(r.ips))
	}
	return ", which was set after the registration and stays so", nil
}

func (r *Registry) clearLeftover(ctx context.Context, of []sighting) error {
	return r.atPeersOf(ctx, of, func(ctx context.Context, s sighting) error {
		if !s.overridden() {
			return nil
		}
		return r.removeOverride(ctx, s.peer, s.name, r.ownWord(s.instance))
	})
}

// hasResidue reports whether the removal of an override has left something
// behind at one peer:
//
//   - If the peer processed a registration of the app at the same time, the
//     instance can be OUT_OF_SERVICE without an override. It stays so, because
//     servers keep that status, and UP, whatever the app sends later
//     (LeaseExistsRule in eureka-core).
//   - A peer that hung has been sent each change several times, and applies the
//     changes in any order. If only this peer has an override, and not just
//     since a moment ago, nobody set it on purpose: the other peers would have
//     received it.
func (r *Registry) hasResidue(of []sighting) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.withdrawn || r.restoredAt.IsZero() || time.Since(r.restoredAt) >= residueFor {
		return false
	}
	return slices.ContainsFunc(of, func(s sighting) bool {
		return s.Status == outOfService && !s.overridden() || s.overriddenAlone(of)
	})
}

// overriddenAlone reports whether only s has an override, and has had it for
// longer than peers need to replicate it.
func (s sighting) overriddenAlone(of []sighting) bool {
	return s.overridden() && s.age > toldWithin && s.upElsewhere(of)
}

// upElsewhere reports whether another peer holds the same registration as UP.
func (s sighting) upElsewhere(of []sighting) bool {
	return slices.ContainsFunc(of, func(o sighting) bool {
		return o.available() && !o.overridden() && o.Dirty.number() == s.Dirty.number()
	})
}

// clearResidue sets an instance to UP if another peer holds it as UP. If none
// does, the app may have reported OUT_OF_SERVICE itself: its next heartbeat
// then decides the status.
func (r *Registry) clearResidue(ctx context.Context, of []sighting) error {
	return r.atPeersOf(ctx, of, func(ctx context.Context, s sighting) error {
		switch {
		case s.overriddenAlone(of):
			return r.removeOverride(ctx, s.peer, s.name, up)
		case s.overridden() || s.Status != outOfService:
			return nil
		case s.upElsewhere(of):
			return r.setAnew(ctx, s.peer, s.name, s.Status, up)
		}
		return r.setAnew(ctx, s.peer, s.name, s.Status, "")
	})
}

// atPeersOf runs f for each sighting at its peer.
func (r *Registry) atPeersOf(ctx context.Context, of []sighting, f func(context.Context, sighting) error) error {
	return r.atPeers(ctx, func(ctx context.Context, p *peer) error {
		for _, s := range of {
			if s.peer == p {
				return passOver404(f(ctx, s))
			}
		}
		return nil
	})
}

func (r *Registry) isLeftover(of []sighting) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.withdrawn {
		return false
	}
	if len(r.overrideInDoubt) > 0 {
		return true
	}
	present := slices.MaxFunc(of, func(a, b sighting) int {
		return int(min(max(a.Dirty.number()-b.Dirty.number(), -1), 1))
	})
	return !slices.ContainsFunc(of, func(s sighting) bool {
		return s.Dirty.number() == present.Dirty.number() && s.overridden() && s.Action != "ADDED"
	})
}

// describe returns the statuses of one instance: "ORDERS/pod-1 is UP at 2 of 2
// servers".
func (r *Registry) describe(of []sighting) string {
	var parts []string
	for len(of) > 0 {
		status := of[0].Status
		rest := slices.DeleteFunc(slices.Clone(of), func(s sighting) bool { return s.Status == status })
		parts = append(parts, fmt.Sprintf("%s at %d of %d servers", status, len(of)-len(rest), len(r.peers)))
		if len(rest) == 0 {
			return of[0].name.String() + " is " + strings.Join(parts, " and ")
		}
		of = rest
	}
	return ""
}

// notFound returns an error with what was looked for, the variables that gave
// it, and what is registered instead.
func (r *Registry) notFound(ctx context.Context) error {
	const like = 3 // examples are enough
	var others []string
	disabled := ""
	hint := func(i instance) bool {
		if i.hasIP(r.ips) && (i.Port.number() == r.port && !i.Port.isOn() || i.SecurePort.number() == r.port && !i.SecurePort.isOn()) && r.id == "" {
			disabled = fmt.Sprintf("%s is registered with port %d, but has it disabled, so that clients do not use it: set LASTCALL_APP_PORT to the port that it has enabled (%s), or name it by LASTCALL_EUREKA_INSTANCE_ID", i.name(), r.port, i.ports())
			return false
		}
		text := fmt.Sprintf("%s at %s, port %s", i.name(), i.IP, i.ports())
		if (r.app != "" || i.hasIP(r.ips)) && !slices.Contains(others, text) {
			others = append(others, text)
		}
		return len(others) < like
	}
	for _, p := range r.peers {
		if r.app == "" && r.id != "" {
			break // no similar instance could be shown
		}
		_, _ = p.each(ctx, r.list(), asJSON, hint) // a failure here has already been reported as the cause
	}
	if disabled != "" {
		return &drain.NotFoundError{Why: disabled}
	}
	at := make([]string, len(r.ips))
	for n, ip := range r.ips {
		at[n] = net.JoinHostPort(ip.String(), strconv.Itoa(r.port))
	}
	what, more := fmt.Sprintf("at %s (LASTCALL_POD_IP, LASTCALL_APP_PORT)", strings.Join(at, " or ")), "; set LASTCALL_EUREKA_INSTANCE_ID to find it by its id"
	if r.id != "" {
		what, more = fmt.Sprintf("as %q (LASTCALL_EUREKA_INSTANCE_ID)", r.id), ""
	}
	if r.app != "" {
		what = fmt.Sprintf("in %s (LASTCALL_EUREKA_APP) ", r.app) + what
	}
	if len(others) > 0 {
		more += "; registered: " + strings.Join(others, ", ")
	}
	return &drain.NotFoundError{Why: "not registered yet, or not " + what + more}
}
