package steps

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"lastcall/drain"
)

// Registry is anything that sends the pod work, controlled by the calls of a
// file. Its methods are safe for concurrent use; each ends with its context.
type Registry struct {
	file   *file
	caller *caller
	fixed  values
	shown  string // the effective steps

	mu sync.Mutex // guards what follows
	// found is what find last set; nil: nothing yet.
	found map[string]string
	// located is set once find has found the instance.
	located bool
	// target grows with each change between Withdraw and Restore. The result of
	// a call for an earlier target does not count for the present one.
	target int
	// draining is true from the first Withdraw until the next Restore.
	draining bool
	// acted is set once Withdraw has succeeded, until the next Restore.
	acted bool
	// hopeless is the reason why the withdrawal can never succeed; empty if it
	// can.
	hopeless string
}

var (
	_ drain.Registry       = (*Registry)(nil)
	_ drain.Finder         = (*Registry)(nil)
	_ drain.Locator        = (*Registry)(nil)
	_ drain.GiveUpReporter = (*Registry)(nil)
	_ drain.ListReporter   = (*Registry)(nil)
	_ drain.Lister         = (*Registry)(nil)
)

// Withdraw makes the calls of the section withdraw, in order, up to the first
// that fails. It first makes the calls of find again. If the instance is not
// known, there is nothing to withdraw.
//
// If an answer means that the withdrawal can never succeed, Withdraw returns
// nil. From then on Withdrawn returns true, and GaveUp returns the reason.
func (r *Registry) Withdraw(ctx context.Context) error {
	target := r.aim(true)
	vars, known, err := r.lookUp(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		if vars, known = r.remembered(); !known {
			return err
		}
	}
	if !known {
		r.note(target, true, "")
		return nil
	}
	got, err := r.run(ctx, withdraw, vars)
	switch {
	case err != nil:
		return err
	case got.verdict == never:
		r.note(target, false, got.reason)
	default:
		r.note(target, true, "")
	}
	return nil
}

// Withdrawn reports whether all conditions of the section withdrawn hold, the
// instance is not known, or the withdrawal is hopeless (see GaveUp). Without
// conditions it reports whether Withdraw has succeeded.
func (r *Registry) Withdrawn(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("no call was made: %w", err)
	}
	r.mu.Lock()
	target, draining, acted, hopeless := r.target, r.draining, r.acted, r.hopeless != ""
	r.mu.Unlock()
	if hopeless {
		return true, nil
	}
	vars, known, err := r.known(ctx)
	switch {
	case err != nil:
		return false, err
	case !known:
		return true, nil
	case len(r.file.sections[withdrawn]) == 0:
		return acted, nil
	}
	got, err := r.run(ctx, withdrawn, vars)
	switch {
	case err != nil:
		return false, err
	case got.verdict == never && draining:
		r.note(target, false, got.reason)
		return true, nil
	case got.verdict == never:
		return false, errors.New(got.reason)
	}
	return got.verdict == passed, nil
}

// Restore makes the calls of the section restore, in order, up to the first
// that fails.
func (r *Registry) Restore(ctx context.Context) error {
	r.aim(false)
	return r.undo(ctx, restore)
}

// Deregister makes the calls of the section deregister, in order, up to the
// first that fails.
func (r *Registry) Deregister(ctx context.Context) error { return r.undo(ctx, deregister) }

func (r *Registry) undo(ctx context.Context, s section) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("no call was made: %w", err)
	}
	if len(r.file.sections[s]) == 0 {
		return nil
	}
	vars, known, err := r.known(ctx)
	if err != nil || !known {
		return err
	}
	_, err = r.run(ctx, s, vars)
	return err
}

// Find makes the calls of the section find, and returns what they have set. If
// the conditions of the section leftover hold, and Withdraw has not been called
// since the last Restore, it also makes the calls of restore. They undo a
// withdrawal that outlived the drain of an earlier pod, or of an earlier start
// of the sidecar.
func (r *Registry) Find(ctx context.Context) (string, error) {
	vars, known, err := r.lookUp(ctx)
	switch {
	case err != nil:
		return "", err
	case !known:
		return "", &drain.NotFoundError{Why: r.file.name + ": the instance is not known there yet"}
	}
	text := r.describe(vars)
	if len(r.file.sections[leftover]) == 0 || r.isLeaving() {
		return text, nil
	}
	got, err := r.run(ctx, leftover, vars)
	if err != nil {
		return "", err
	}
	if got.verdict != passed || r.isLeaving() {
		return text, nil
	}
	if _, err := r.run(ctx, restore, vars); err != nil {
		return "", fmt.Errorf("an earlier withdrawal is still there and could not be undone: %w", err)
	}
	return text + ", which an earlier withdrawal kept out of service; put back", nil
}

// Located reports whether find has ever found the instance. Without a section
// find there is nothing to look up, and the instance is known from the first
// call on.
func (r *Registry) Located() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.located
}

// GaveUp returns the reason why the present withdrawal can never succeed; empty
// if there is none. Withdrawn returns true for a withdrawal that was given up.
func (r *Registry) GaveUp() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hopeless
}

// Lists reports whether Withdrawn is false for every instance that is in
// service. It is false for a role that an instance in service may lack, such as
// a cluster's leadership: there is nothing to wait for after Restore, nor at
// start.
func (r *Registry) Lists() bool { return !r.file.unlisted }

// Steps returns the effective steps as YAML, with the values of all variables
// that are fixed at start, and with secrets masked.
func (r *Registry) Steps() string { return r.shown }

// describe returns the variables that find has set, as text.
func (r *Registry) describe(vars values) string {
	var set []string
	for _, name := range slices.Sorted(maps.Keys(vars.set)) {
		set = append(set, fmt.Sprintf("%s=%s", name, hide(vars.set[name], r.caller.secrets)))
	}
	if len(set) == 0 {
		return "answers"
	}
	return strings.Join(set, ", ")
}

// aim sets whether the instance is to be withdrawn from now on, and returns the
// target.
func (r *Registry) aim(draining bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining != draining || !draining {
		r.draining, r.acted, r.hopeless = draining, false, ""
		r.target++
	}
	return r.target
}

// note records the result of a call for a target.
func (r *Registry) note(target int, acted bool, hopeless string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.target != target {
		return
	}
	r.acted = r.acted || acted
	if hopeless != "" && r.hopeless == "" {
		r.hopeless = hopeless
		slog.Warn("registry: the withdrawal can never succeed, so it is not waited for", "registry", r.file.name, "reason", hopeless)
	}
}

func (r *Registry) isLeaving() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draining
}

// known returns the variables that find last set. If there are none, it calls
// lookUp. It returns false if the instance is not known.
func (r *Registry) known(ctx context.Context) (values, bool, error) {
	if vars, ok := r.remembered(); ok {
		return vars, true, nil
	}
	return r.lookUp(ctx)
}

func (r *Registry) remembered() (values, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fixed.with(r.found), r.found != nil
}

// lookUp makes the calls of find.
func (r *Registry) lookUp(ctx context.Context) (vars values, known bool, err error) {
	if err := ctx.Err(); err != nil {
		return vars, false, fmt.Errorf("no call was made: %w", err)
	}
	got, err := r.run(ctx, find, r.fixed)
	if err != nil {
		return vars, false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if got.verdict == absent {
		r.found = nil
		return vars, false, nil
	}
	r.found, r.located = got.set, true
	return r.fixed.with(got.set), true, nil
}
