package eureka

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// maxNamesakes bounds the instances of other applications that are remembered.
const maxNamesakes = 32

// Servers keep overrides by instance id alone (overriddenInstanceStatusMap in
// eureka-core): one that is set for ORDERS/web-0 takes BILLING/web-0 out of
// service as well, with its next heartbeat, and it stays so after the override
// has gone. Such namesakes are looked for when the instance is found, and
// spared: see exempt. One that registers later shows in the answers that
// Withdrawn reads, and is put right when the pod's instance is deregistered or
// restored.

// searchNamesakes looks for the namesakes of names at the first peer that
// answers, once. It costs the whole registry, as a client's start does.
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
			continue // it is tried again with the next Find
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
		slog.Warn("eureka: another application has an instance of the same id, and Eureka's servers keep a withdrawal by the id alone: it is spared as far as possible; give each application ids of its own, such as ${spring.application.name}:${spring.cloud.client.hostname}:${server.port}",
			"instance", n.String(), "id", n.id)
	}
}

// namesakesOf returns the namesakes of n that are known.
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

// warnOfNamesakes is what Find says of the namesakes of n.
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

// rightNamesakes puts the namesakes of n at p back into service that its
// override has taken out. One that was UP in the same registration is made UP;
// any other has the status that its app says with the next heartbeat. One that
// registered meanwhile has the look of an override, which cannot be told from
// one of its own: servers have but one for an id.
func (r *Registry) rightNamesakes(ctx context.Context, p *peer, n name) error {
	if r.isExempt(p, n) {
		return nil // they were not touched
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
			return fmt.Errorf("putting %s right, which has the same id: %w", o, err)
		}
		wasUp := before[o].Status == up && before[o].Dirty == i.Dirty
		switch {
		case i.Status == up:
			continue
		case i.Status != outOfService && !i.overridden() && (!wasUp || i.Status != down):
			continue // out of service by its app's own word
		case wasUp:
			err = r.setAnew(ctx, p, o, i.Status, up)
		default:
			err = r.setAnew(ctx, p, o, i.Status, "")
		}
		if err != nil && !isNotFound(err) {
			return fmt.Errorf("putting %s right, which has the same id: %w", o, err)
		}
		slog.Info("eureka: an instance of the same id, which the withdrawal had taken out of service, is put back", "instance", o.String(), "server", p.url)
	}
	return nil
}

// exempted names an instance at a peer.
type exempted struct {
	peer *peer
	name name
}

// isExempt reports whether the withdrawal of n at p has spared its namesakes.
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
