package eureka

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Registry is the pod's instance in Eureka. Its methods may be called from
// several goroutines.
type Registry struct {
	peers  []*peer
	app    string // empty: not told
	id     string // empty: found by ip and port
	ip     netip.Addr
	port   int
	status string // of a withdrawn instance

	mu sync.Mutex // guards what follows
	// known are the names under which peers have held the instance.
	known []name
	// withdrawn is set from the first Withdraw to the next Restore: what Find
	// must not undo.
	withdrawn bool
	// confirmed is, for each peer that Withdrawn found to tell nobody of the
	// pod any more, the state of its registry at the time.
	confirmed map[*peer]string
}

// maxKnown bounds the names that are remembered: an app that takes a new id
// with each restart has many.
const maxKnown = 32

// Withdraw overrides the instance's status at every peer. It returns nil when
// all peers have done so, or do not know the instance, or are down (see the
// package's comment); an instance that is not registered has nothing to be
// withdrawn.
func (r *Registry) Withdraw(ctx context.Context) error {
	r.mu.Lock()
	r.withdrawn = true
	r.mu.Unlock()
	return r.atPeers(ctx, "withdrawing the instance", func(ctx context.Context, p *peer) error {
		return r.forOwn(ctx, p, func(n name) error {
			i, err := p.instance(ctx, n)
			if err != nil {
				return err
			}
			for _, status := range overrides(i.instance, r.status) {
				if err := p.override(ctx, n, status); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// overrides are the statuses to set, one after the other, so that an override
// keeps i out of service: status where i is UP. One that is not UP by its own
// word gets the other status, as a mark; where it has that by itself, the first
// of two makes the second differ, and never is it UP in between.
func overrides(i instance, status string) []string {
	other := outOfService
	if status == outOfService {
		other = down
	}
	switch {
	case i.Status == up:
		return []string{status}
	case i.overridden():
		return nil
	case string(i.Status) == other:
		return []string{status, other}
	}
	return []string{other}
}

// Restore removes the override at every peer. The instance is UP at once if
// that is what it was when it was withdrawn, as far as can be told; otherwise
// it has the status that the app itself has from the app's next heartbeat on.
func (r *Registry) Restore(ctx context.Context) error {
	r.mu.Lock()
	r.withdrawn, r.confirmed = false, nil
	r.mu.Unlock()
	return r.atPeers(ctx, "putting the instance back into service", func(ctx context.Context, p *peer) error {
		return r.forOwn(ctx, p, func(n name) error {
			i, err := p.instance(ctx, n)
			if err != nil || !i.overridden() {
				return err
			}
			return p.removeOverride(ctx, n, r.ownStatus(i.instance))
		})
	})
}

// ownStatus is UP where the app says so behind the override, as far as can be
// told, and otherwise empty. A status that differs from the override is the
// app's own word, DOWN or STARTING. An override that is not the configured one
// is the mark of an instance that was not UP. Behind DOWN, an app that has
// registered since can have said either.
func (r *Registry) ownStatus(i instance) string {
	if i.Status == i.Overridden && string(i.Overridden) == r.status && (r.status != down || i.Action == "MODIFIED") {
		return up
	}
	return ""
}

// Deregister cancels the instance at every peer.
func (r *Registry) Deregister(ctx context.Context) error {
	return r.atPeers(ctx, "deregistering the instance", func(ctx context.Context, p *peer) error {
		return r.forOwn(ctx, p, func(n name) error { return p.cancel(ctx, n) })
	})
}

// atPeers runs f for all peers side by side. The error joins the failures, less
// those of peers that are down if another has answered.
func (r *Registry) atPeers(ctx context.Context, doing string, f func(context.Context, *peer) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s in Eureka: %w", doing, err)
	}
	errs := make([]error, len(r.peers))
	var running sync.WaitGroup
	for n, p := range r.peers {
		running.Go(func() {
			if err := f(ctx, p); err != nil {
				errs[n] = fmt.Errorf("%s at %s: %w", doing, p.url, err)
			}
		})
	}
	running.Wait()
	if slices.Contains(errs, nil) {
		errs = slices.DeleteFunc(errs, isDown)
	}
	return errors.Join(errs...)
}

// forOwn runs f for each name of the pod's instance at p. A name that p does
// not know is passed over.
func (r *Registry) forOwn(ctx context.Context, p *peer, f func(name) error) error {
	names, err := r.own(ctx, p)
	if err != nil {
		return err
	}
	found := false
	for _, n := range names {
		switch err := f(n); {
		case isNotFound(err):
		case err != nil:
			return fmt.Errorf("%s: %w", n, err)
		default:
			found = true
		}
	}
	if !found {
		return p.check(ctx)
	}
	return nil
}

// own returns the names of the pod's instance: what is configured, or what p
// and the other peers have shown so far.
func (r *Registry) own(ctx context.Context, p *peer) ([]name, error) {
	if r.id != "" && r.app != "" {
		return r.configured(), nil
	}
	var names []name
	err := r.lookUp(ctx, p, func(i instance) { names = append(names, i.name()) })
	known := r.remember(names)
	if err != nil && len(known) > 0 && ctx.Err() == nil {
		err = nil // the names are enough; a peer that is in trouble will say so again
	}
	return known, err
}

// lookUp visits the pod's instances at p. Without a configured id it reads what
// clients read, which is as old as theirs.
func (r *Registry) lookUp(ctx context.Context, p *peer, visit func(instance)) error {
	if r.id != "" {
		i, err := p.instanceByID(ctx, r.id)
		if err == nil {
			visit(i.instance)
		}
		return passOver404(err)
	}
	for _, l := range r.lists() {
		err := p.each(ctx, l, asJSON, func(i instance) bool {
			if r.isOwn(i) {
				visit(i)
			}
			return true
		})
		if passOver404(err) != nil {
			return err
		}
	}
	return nil
}

func passOver404(err error) error {
	if isNotFound(err) {
		return nil
	}
	return err
}

// isOwn tells whether a list's entry leads clients to the pod.
func (r *Registry) isOwn(i instance) bool {
	if r.id == "" {
		return (r.app == "" || strings.EqualFold(string(i.App), r.app)) && i.isAt(r.ip, r.port)
	}
	return i.name().id == r.id && (r.app == "" || strings.EqualFold(string(i.App), r.app))
}

// apps are the spellings of the configured application: Java's and most other
// clients register in upper case, and the server minds the case.
func (r *Registry) apps() []string {
	if r.app == "" {
		return nil
	}
	return slices.Compact([]string{strings.ToUpper(r.app), r.app})
}

func (r *Registry) configured() []name {
	var names []name
	for _, app := range r.apps() {
		names = append(names, name{app, r.id})
	}
	return names
}

// lists are what to look through for the instance.
func (r *Registry) lists() []list {
	if r.app == "" {
		return []list{allApps()}
	}
	var lists []list
	for _, app := range r.apps() {
		lists = append(lists, oneApp(app))
	}
	return lists
}

// remember adds names to the known ones, and returns them all.
func (r *Registry) remember(names []name) []name {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range names {
		if !slices.Contains(r.known, n) {
			r.known = append(r.known, n)
		}
	}
	if over := len(r.known) - maxKnown; over > 0 {
		r.known = slices.Delete(r.known, 0, over)
	}
	return slices.Clone(r.known)
}
