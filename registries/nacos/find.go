package nacos

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Find looks the instances up: each service must hold one at an address of the
// pod. It enables those that a withdrawal of an earlier registration has
// disabled, see precedes, or that Restore has not found. The error names what is
// not registered, and what to check.
func (r *Registry) Find(ctx context.Context) (string, error) {
	found := map[service]bool{}
	missing := map[service]error{}
	var texts []string
	var errs []error
	for _, t := range r.targets {
		err := r.atOne(ctx, func(s *server) error {
			text, err := r.find(ctx, s, t)
			if err == nil {
				found[t.service] = true
				texts = append(texts, text)
			}
			return err
		})
		if errors.Is(err, errNotRegistered) {
			missing[t.service] = err
		} else {
			errs = append(errs, err)
		}
	}
	for of, err := range missing {
		if !found[of] {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	return strings.Join(texts, "; "), nil
}

var errNotRegistered = errors.New("not registered: check LASTCALL_NACOS_SERVICE, _GROUP, _CLUSTER and _NAMESPACE (the id), LASTCALL_POD_IP and LASTCALL_APP_PORT against what the app registers")

func (r *Registry) find(ctx context.Context, s *server, t *target) (string, error) {
	h, enabled, found, err := r.look(ctx, s, t)
	switch {
	case err != nil:
		return "", err
	case !found:
		return "", fmt.Errorf("%v: %w", t, errNotRegistered)
	}
	text := t.String()
	before, marked := markOf(h)
	if !marked && (enabled || !r.wasTried(t)) || r.isLeaving() {
		if !enabled && !r.isLeaving() {
			text += ", which somebody has disabled"
		}
		return text, nil
	}
	now, err := r.currentMark(ctx, s, t)
	if err != nil {
		return "", err
	}
	if marked && !enabled && !before.precedes(now) && !r.wasTried(t) {
		return text + ", withdrawn by this pod", nil
	}
	if !enabled {
		text += ", which an earlier withdrawal kept out; enabled"
		r.setTried(t, true)
	}
	if err := r.restore(ctx, s, t); err != nil {
		return "", fmt.Errorf("an earlier withdrawal is still there and could not be undone: %w", err)
	}
	return text, nil
}
