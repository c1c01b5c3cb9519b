package nacos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"lastcall/drain"
)

// errNotRegistered is the error if a server does not hold an instance.
var errNotRegistered = errors.New("not registered")

// Find looks up the instances: each service must hold one at an address of the
// pod. It enables instances that were disabled by a withdrawal of an earlier
// registration, see precedes, or that Restore did not find. The error names
// what is not registered, and what to check. It is a NotFoundError if servers
// have answered and none of them holds the instance.
func (r *Registry) Find(ctx context.Context) (string, error) {
	var mu sync.Mutex
	found := map[service]bool{}
	var texts []string
	var missing, failed []error
	err := r.forTargets(ctx, func(ctx context.Context, s *server, t *target) error {
		text, err := r.find(ctx, s, t)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			found[t.service] = true
			texts = append(texts, text)
		}
		return err
	})
	for _, err := range joined(err) {
		if errors.Is(err, errNotRegistered) {
			missing = append(missing, err)
		} else {
			failed = append(failed, err)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return "", err
	}
	if of := r.without(found); len(of) > 0 {
		return "", &drain.NotFoundError{Why: r.whyNotFound(ctx, of, missing)}
	}
	slices.Sort(texts)
	return strings.Join(texts, "; ") + r.alsoRegistered(ctx), nil
}

// joined returns the errors that forTargets has joined.
func joined(err error) []error {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		return all.Unwrap()
	}
	return nil
}

func (r *Registry) find(ctx context.Context, s *server, t *target) (string, error) {
	h, enabled, found, err := r.look(ctx, s, t)
	switch {
	case err != nil:
		return "", err
	case !found:
		return "", errNotRegistered
	case h.Cluster != "" && h.Cluster != t.cluster:
		return "", fmt.Errorf("%v: it is registered in cluster %s: set LASTCALL_NACOS_CLUSTER=%[2]s", t, h.Cluster)
	}
	text := t.String()
	before, hasMark := markOf(h)
	if !hasMark && (enabled || !r.wasTried(t)) || r.isLeaving() {
		if !enabled && !r.isLeaving() {
			text += ", which somebody has disabled"
		}
		return text, nil
	}
	now, err := r.currentMark(ctx, s, t)
	if err != nil {
		return "", err
	}
	if hasMark && !enabled && !before.precedes(now) && !r.wasTried(t) {
		return text + ", withdrawn by this pod", nil
	}
	if !enabled {
		text += ", which an earlier withdrawal kept out of service; enabled"
		r.setTried(t, true)
	}
	if err := r.restore(ctx, s, t); err != nil {
		return "", fmt.Errorf("an earlier withdrawal is still there and could not be undone: %w", err)
	}
	return text, nil
}

// without returns the services that hold no instance of the pod.
func (r *Registry) without(found map[service]bool) []service {
	var all []service
	for _, t := range r.targets {
		if !found[t.service] && !slices.Contains(all, t.service) {
			all = append(all, t.service)
		}
	}
	return all
}

// whyNotFound returns what was looked for, what is registered instead, and what
// to check.
func (r *Registry) whyNotFound(ctx context.Context, of []service, missing []error) string {
	var names []string
	for _, one := range of {
		names = append(names, one.grouped())
	}
	var at []string
	for _, t := range r.targets {
		if t.service == of[0] {
			at = append(at, net.JoinHostPort(t.ip.String(), strconv.Itoa(t.port)))
		}
	}
	text := fmt.Sprintf("no instance of %s at %s in cluster %s, namespace %s: not registered yet, or check LASTCALL_NACOS_SERVICE, _GROUP, _CLUSTER and _NAMESPACE (the id), LASTCALL_POD_IP and LASTCALL_APP_PORT against what the app registers",
		strings.Join(names, " and "), strings.Join(at, " or "), r.targets[0].cluster, of[0].namespace)
	const like = 3 // examples are enough
	var others []string
	for _, one := range of {
		_ = r.listAtOne(ctx, one, func(h host) { // it is only for the message
			text := fmt.Sprintf("%s in cluster %s", net.JoinHostPort(strings.Trim(h.IP, "[]"), strconv.Itoa(h.Port)), h.Cluster)
			if len(others) < like && !slices.Contains(others, text) {
				others = append(others, text)
			}
		})
	}
	if len(others) > 0 {
		text += "; registered: " + strings.Join(others, ", ")
	}
	var failed []string
	for _, err := range missing {
		for _, line := range strings.Split(err.Error(), "\n") {
			if !strings.HasSuffix(line, errNotRegistered.Error()) && !slices.Contains(failed, line) {
				failed = append(failed, line)
			}
		}
	}
	if len(failed) > 0 {
		text += "; not asked: " + strings.Join(failed, "; ")
	}
	return text
}

// alsoRegistered returns a text with the other instances at the pod's
// addresses: ports that are not configured stay in service.
func (r *Registry) alsoRegistered(ctx context.Context) string {
	var ports []string
	done := map[service]bool{}
	for _, t := range r.targets {
		if done[t.service] {
			continue
		}
		done[t.service] = true
		_ = r.listAtOne(ctx, t.service, func(h host) { // it is only for the message
			text := fmt.Sprintf("%s of %s", net.JoinHostPort(strings.Trim(h.IP, "[]"), strconv.Itoa(h.Port)), t.service.grouped())
			if len(ports) < maxServices && r.isOtherPort(t.service, h) && !slices.Contains(ports, text) {
				ports = append(ports, text)
			}
		})
	}
	if len(ports) == 0 {
		return ""
	}
	return "; not withdrawn with it: " + strings.Join(ports, ", ") + ", whose port is not in LASTCALL_APP_PORT"
}

// isOtherPort reports whether an instance is at an address of the pod, but at
// none of its configured ports.
func (r *Registry) isOtherPort(of service, h host) bool {
	ip, err := netip.ParseAddr(strings.Trim(h.IP, "[]"))
	if err != nil {
		return false
	}
	own := false
	for _, t := range r.targets {
		if t.service == of && t.ip == ip.Unmap().WithZone("") {
			if t.port == h.Port {
				return false
			}
			own = true
		}
	}
	return own
}

// listAtOne reads the list that clients get of a service, at the first server
// that answers.
func (r *Registry) listAtOne(ctx context.Context, of service, visit func(host)) error {
	return r.atOne(ctx, func(s *server) error {
		_, err := s.list(ctx, of, false, visit)
		return err
	})
}
