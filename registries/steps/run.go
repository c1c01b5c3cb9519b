package steps

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// result is the result of a section or a step.
type result struct {
	verdict verdict
	reason  string            // of unmet, notYet, absent and never
	set     map[string]string // variables that the steps have set
}

// run runs the steps of a section, one after the other, up to the first that
// fails or settles the section. An error names the step, and what to do.
func (r *Registry) run(ctx context.Context, s section, values values) (result, error) {
	all := result{verdict: passed, set: map[string]string{}}
	steps := r.file.sections[s]
	for i := range steps {
		got, err := r.step(ctx, &steps[i], s, values)
		if err != nil {
			return result{}, fmt.Errorf("%w (%s)", err, steps[i].at)
		}
		for name, value := range got.set {
			all.set[name] = value
		}
		values = values.with(got.set)
		switch got.verdict {
		case passed, done:
			continue
		case end:
			return all, nil
		case unmet, notYet, absent, never:
			all.verdict, all.reason = got.verdict, got.reason
			return all, nil
		}
	}
	return all, nil
}

// step makes one call and evaluates its answer.
func (r *Registry) step(ctx context.Context, st *step, s section, values values) (result, error) {
	got, err := r.caller.call(ctx, st, values)
	if err != nil {
		if ctx.Err() != nil {
			return result{}, err
		}
		refused := errors.Is(err, syscall.ECONNREFUSED)
		late := errors.Is(err, context.DeadlineExceeded)
		if o, ok := st.special(func(o outcome) bool { return o.refused && refused || o.timeout && late }); ok {
			return settled(&o, st, 0, err.Error()), nil
		}
		return result{}, err
	}
	if o, ok := st.match(got.code, got.body, values); ok {
		return settled(&o, st, got.code, fmt.Sprintf("%s %s answered %d", st.verb(), st.url.raw, got.code)), nil
	}
	if !st.okay(got.code) {
		at, _ := st.url.expand(values, inURL) // it succeeded for the call
		return result{}, r.caller.refusal(st, at, got)
	}
	set := map[string]string{}
	for _, a := range st.set {
		found, err := lookup(got.body, a.path, values)
		if err != nil {
			return result{}, err
		}
		if !found.Exists() || found.String() == "" {
			missing := fmt.Sprintf("the answer of %s %s has no %s", st.verb(), st.url.raw, r.expandPath(a.path, values))
			if o, ok := st.special(func(o outcome) bool { return o.missing }); ok {
				return settled(&o, st, got.code, missing), nil
			}
			return result{}, errors.New(missing)
		}
		set[a.name] = found.String()
	}
	for _, c := range st.expected {
		holds, err := c.holds(got.body, values.with(set))
		if err != nil {
			return result{}, fmt.Errorf("%s %s: %s: %w", st.verb(), st.url.raw, c, err)
		}
		if holds {
			continue
		}
		reason := fmt.Sprintf("%s %s: condition not met: %s", st.verb(), st.url.raw, c)
		if s == withdrawn || s == leftover || s == listed {
			return result{verdict: unmet, reason: reason}, nil
		}
		return result{}, fmt.Errorf("%s: %s", reason, r.caller.excerpt(got.body))
	}
	return result{verdict: passed, set: set}, nil
}

// settled returns the result for an outcome that the file names.
func settled(o *outcome, st *step, code int, what string) result {
	res := result{verdict: o.verdict, reason: what}
	if o.verdict == never {
		res.reason = o.reason(st, code)
	} else if o.because != "" {
		res.reason = o.because
	}
	return res
}

// expandPath returns a path for messages.
func (r *Registry) expandPath(t text, values values) string {
	path, err := t.expand(values, nil)
	if err != nil {
		return t.raw
	}
	return hide(path, r.caller.secrets)
}
