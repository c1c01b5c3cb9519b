// Package check finds mistakes in manifests that would make pods with Lastcall lose
// requests.
//
// Read turns YAML and JSON into objects, Objects applies every rule to them, and
// each Finding gives the place of the mistake and the line that fixes it. Only pods
// that have the sidecar, or the label that requests its injection, are checked. A
// pod with the label is checked as it would be after the injection.
package check

import (
	"cmp"
	"fmt"
	"slices"

	"lastcall/admission/inject"
)

// Finding is one mistake.
type Finding struct {
	Rule    string `json:"rule"`           // its fixed name, such as grace-period-short
	File    string `json:"file,omitempty"` // - for standard input; empty in the webhook
	Line    int    `json:"line,omitempty"` // of the field to change, or of the nearest field that exists
	Object  string `json:"object"`         // KIND/NAME, with NAMESPACE/ before it if it has one
	Message string `json:"message"`        // what happens, in one sentence or two
	Fix     string `json:"fix"`            // YAML that fixes it, or what to do
}

// String returns the finding as the command prints it, without the fix.
func (f Finding) String() string {
	at := f.File
	if f.Line > 0 {
		at = fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	if at != "" {
		at += ": "
	}
	return fmt.Sprintf("%s%s: %s [%s]", at, f.Object, f.Message, f.Rule)
}

// Options is what a check needs besides the manifests.
type Options struct {
	// Parameters are those of the injection. A ConfigMap lastcall-injection among
	// the objects overrides them.
	Parameters inject.Parameters
	// Minor is the cluster's minor version, such as 28 for 1.28. If it is 0, the
	// version is unknown, and rules about the version are skipped.
	Minor int
}

// Objects returns the findings of every rule, sorted by file and line. It is safe
// for concurrent use.
func Objects(objects []Object, options Options) []Finding {
	in := newInput(objects, options)
	var all []Finding
	for i := range in.workloads {
		w := &in.workloads[i]
		for _, rule := range workloadRules() {
			all = append(all, rule(in, w)...)
		}
	}
	all = append(all, budgets(in)...)
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule))
	})
	return all
}

// workloadRules returns the rules about a single workload.
func workloadRules() []func(*input, *workload) []Finding {
	return []func(*input, *workload) []Finding{
		notInjected,
		graceZero, graceMismatch, graceShort,
		hooks, tokens,
		sidecarProbes, sidecarKind,
		appPort,
		hostNetwork,
		minReady, allUnavailable,
	}
}
