package eureka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// sighting is an instance of the pod's at one peer.
type sighting struct {
	peer *peer
	name name
	*seen
}

// Find looks the pod's instance up at every peer, and tells under which name
// and with which status they hold it.
//
// It removes an override that is older than the present registration, as an
// earlier pod with the same id leaves it behind when its drain is cut short:
// servers keep overrides by id for an hour. One that is newer is somebody's
// will and stays, as does one that Withdraw has set since the last Restore. A
// registration that inherits an override leaves ADDED as the instance's last
// action; a status set after it leaves MODIFIED. A peer that takes a
// registration over from another says ADDED as well, so an override is a
// leftover only where no peer that holds the present registration says
// otherwise.
//
// An error says that no peer that can be reached holds the instance, and what
// to set; or that it is withdrawn and holds another address than the pod's, so
// that it cannot be told yet whether that is a leftover.
func (r *Registry) Find(ctx context.Context) (string, error) {
	var mu sync.Mutex
	var sightings []sighting
	err := r.atPeers(ctx, func(ctx context.Context, p *peer) error {
		return r.forOwn(ctx, p, func(n name) error {
			i, err := p.instance(ctx, n)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			sightings = append(sightings, sighting{p, n, &i})
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
	r.remember(names)

	var told []string
	for _, n := range names {
		of := slices.DeleteFunc(slices.Clone(sightings), func(s sighting) bool { return s.name != n })
		text, err := r.clear(ctx, of)
		if err != nil {
			return "", err
		}
		told = append(told, r.describe(of)+text)
	}
	if err != nil {
		told = append(told, err.Error())
	}
	return strings.Join(told, "; "), nil
}

// clear removes a leftover override of one instance, and tells so.
func (r *Registry) clear(ctx context.Context, of []sighting) (string, error) {
	if !slices.ContainsFunc(of, func(s sighting) bool { return s.overridden() }) {
		return "", nil
	}
	if !r.isLeftover(of) {
		if r.ip.IsValid() && !slices.ContainsFunc(of, func(s sighting) bool { return s.hasIP(r.ip) }) {
			return "", fmt.Errorf("%s, but registered at %s, not at this pod's %s: an earlier pod's, as long as the app has not registered", r.describe(of), of[0].IP, r.ip)
		}
		return ", which was set after it registered and stays so", nil
	}
	err := r.atPeers(ctx, func(ctx context.Context, p *peer) error {
		for _, s := range of {
			if s.peer == p && s.overridden() {
				return passOver404(p.removeOverride(ctx, s.name, r.ownStatus(s.instance)))
			}
		}
		return nil
	})
	return ", left behind by an earlier instance of this id; removed", err
}

func (r *Registry) isLeftover(of []sighting) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.withdrawn {
		return false
	}
	present := slices.MaxFunc(of, func(a, b sighting) int {
		return int(min(max(a.Dirty.number()-b.Dirty.number(), -1), 1))
	})
	return !slices.ContainsFunc(of, func(s sighting) bool {
		return s.Dirty.number() == present.Dirty.number() && s.overridden() && s.Action != "ADDED"
	})
}

// describe tells the statuses of one instance: "ORDERS/pod-1 is UP at 2 of 2 servers".
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

// notFound says what was looked for, by which variables, and what is there
// instead.
func (r *Registry) notFound(ctx context.Context) error {
	const like = 3 // examples are enough
	var others []string
	hint := func(i instance) bool {
		text := fmt.Sprintf("%s at %s:%s", i.name(), i.IP, strings.TrimSpace(string(i.Port.Number)))
		if (r.app != "" || i.hasIP(r.ip)) && !slices.Contains(others, text) {
			others = append(others, text)
		}
		return len(others) < like
	}
	for _, p := range r.peers {
		if r.app == "" && r.id != "" {
			break // there is nothing like it to be shown
		}
		_ = p.each(ctx, r.list(), asJSON, hint) // what fails here has been told as the cause
	}
	what, more := fmt.Sprintf("at %s (LASTCALL_POD_IP, LASTCALL_APP_PORT)", net.JoinHostPort(r.ip.String(), strconv.Itoa(r.port))), "; LASTCALL_EUREKA_INSTANCE_ID would name it"
	if r.id != "" {
		what, more = fmt.Sprintf("as %q (LASTCALL_EUREKA_INSTANCE_ID)", r.id), ""
	}
	if r.app != "" {
		what = fmt.Sprintf("in %s (LASTCALL_EUREKA_APP) ", r.app) + what
	}
	if len(others) > 0 {
		more += "; registered: " + strings.Join(others, ", ")
	}
	return errors.New("not registered yet, or not " + what + more)
}
