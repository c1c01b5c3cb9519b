package steps

import (
	"context"
	"fmt"
)

// Listed reports whether all conditions of the section listed hold. Without
// that section, it reports whether find has found the instance and the
// conditions of the section withdrawn do not hold. Without either section, it
// reports whether find has found the instance.
func (r *Registry) Listed(ctx context.Context) (is bool, why string, err error) {
	if err := ctx.Err(); err != nil {
		return false, "", fmt.Errorf("no call was made: %w", err)
	}
	vars, known, err := r.lookUp(ctx)
	switch {
	case err != nil:
		return false, "", err
	case !known:
		return false, r.file.name + ": the instance is not known there yet", nil
	case len(r.file.sections[listed]) > 0:
		got, err := r.run(ctx, listed, vars)
		return err == nil && got.verdict == passed, got.reason, err
	case len(r.file.sections[withdrawn]) == 0:
		return true, "", nil
	}
	got, err := r.run(ctx, withdrawn, vars)
	switch {
	case err != nil:
		return false, "", err
	case got.verdict == passed:
		return false, r.file.name + ": the instance is withdrawn", nil
	case got.verdict == never:
		return false, got.reason, nil
	}
	return true, "", nil
}
