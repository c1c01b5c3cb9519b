package eureka

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// maxNamesakes limits how many instances of other applications are remembered.
const maxNamesakes = 32

// Servers store overrides by instance id alone (overriddenInstanceStatusMap in
// eureka-core). An override for ORDERS/web-0 also takes BILLING/web-0 out of
// service, with its next heartbeat, and BILLING/web-0 stays so after the
// override is removed. Find looks for such namesakes, and the withdrawal spares
// them: see exempt. A namesake that registers later appears in the answers that
// Withdrawn reads. It is put back into service when the pod's instance is
// deregistered or restored.

// searchNamesakes looks once for the namesakes of names, at the first peer that
// answers. It reads the whole registry, as a client does at its start.
func (r *Registry) searchNamesakes(ctx context.Context, names []name) {
	r.mu.Lock()
	searched := r.searched
	r.mu.Unlock()
	if searched {
		return
	}
	for _, p := range r.peers {
		var found []instance
		_, err := p.each(ctx, allApps(), asJSON, func(i instance) bool {
			if n := i.name(); !slices.Contains(names, n) && slices.ContainsFunc(names, func(o name) bool { return o.id == n.id }) {
				found = append(found, i)
			}
			return true
		})
		if err != nil {
			continue // the next Find tries again
		}
		r.rememberNamesakes(found, names)
		r.mu.Lock()
		r.searched = true
		r.mu.Unlock()
		return
	}
}

func (r *Registry) rememberNamesakes(found []instance, own []name) {
	found = slices.DeleteFunc(found, r.isOwn)
	r.mu.Lock()
	defer r.mu.Unlock()
	for at := range found {
		n := found[at].name()
		if _, known := r.namesakes[n]; known || slices.Contains(own, n) || len(r.namesakes) >= maxNamesakes {
			continue
		}
		if r.namesakes == nil {
			r.namesakes = map[name]instance{}
		}
		r.namesakes[n] = found[at]
		slog.Warn("eureka: another application has an instance with the same id, and Eureka's servers store a withdrawal by id alone: Lastcall spares that instance as far as possible; give each application ids of its own, such as ${spring.application.name}:${spring.cloud.client.hostname}:${server.port}",
			"instance", n.String(), "id", n.id)
	}
}

// namesakesOf returns the known namesakes of n.
func (r *Registry) namesakesOf(n name) []name {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []name
	for o := range r.namesakes {
		if o.id == n.id && o != n {
			found = append(found, o)
		}
	}
	return slices.SortedFunc(slices.Values(found), name.compare)
}

// warnOfNamesakes returns what Find adds to its result about the namesakes of
// n.
func (r *Registry) warnOfNamesakes(n name) string {
	var texts []string
	for _, o := range r.namesakesOf(n) {
		texts = append(texts, o.String())
	}
	if len(texts) == 0 {
		return ""
	}
	return fmt.Sprintf("; %s has the same id, by which servers keep overrides", strings.Join(texts, " and "))
}

// rightNamesakes puts back into service those namesakes of n at p that n's
// override has taken out of service. A namesake that was UP in the same
// registration is set to UP. Any other gets the status that its app reports
// with the next heartbeat. A namesake that registered meanwhile seems to have
// an override. It cannot be distinguished from one of its own: servers have
// only one override per id.
func (r *Registry) rightNamesakes(ctx context.Context, p *peer, n name) error {
	if r.isExempt(p, n) {
		return nil // the namesakes were not affected
	}
	r.mu.Lock()
	before := maps.Clone(r.namesakes)
	r.mu.Unlock()
	for _, o := range r.namesakesOf(n) {
		i, err := p.instance(ctx, o)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("restoring %s, which has the same id: %w", o, err)
		}
		wasUp := before[o].Status == up && before[o].Dirty == i.Dirty
		switch {
		case i.Status == up:
			continue
		case i.Status != outOfService && !i.overridden() && (!wasUp || i.Status != down):
			continue // out of service because its app says so
		case wasUp:
			err = r.setAnew(ctx, p, o, i.Status, up)
		default:
			err = r.setAnew(ctx, p, o, i.Status, "")
		}
		if err != nil && !isNotFound(err) {
			return fmt.Errorf("restoring %s, which has the same id: %w", o, err)
		}
		slog.Info("eureka: restored an instance with the same id that the withdrawal had taken out of service", "instance", o.String(), "server", p.url)
	}
	return nil
}

// exempted identifies an instance at a peer.
type exempted struct {
	peer *peer
	name name
}

// isExempt reports whether the withdrawal of n at p spared its namesakes.
func (r *Registry) isExempt(p *peer, n name) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.exempt[exempted{p, n}]
}

func (r *Registry) setExempt(p *peer, n name, exempt bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !exempt {
		delete(r.exempt, exempted{p, n})
		return
	}
	if r.exempt == nil {
		r.exempt = map[exempted]bool{}
	}
	r.exempt[exempted{p, n}] = true
}
