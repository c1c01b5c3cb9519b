// Package check finds mistakes in manifests by which pods with Lastcall would
// lose requests.
//
// Read turns YAML and JSON into objects, Objects applies every rule to them, and
// each Finding says where the mistake is and which line fixes it. Objects that
// have nothing to do with Lastcall give no findings: a pod is looked at if it
// has the sidecar, or the label that asks for it, with which it is checked as
// the injection would leave it.
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
	Line    int    `json:"line,omitempty"` // of what has to change, or of what is nearest to it
	Object  string `json:"object"`         // KIND/NAME, with NAMESPACE/ before it if it has one
	Message string `json:"message"`        // what happens, in one sentence or two
	Fix     string `json:"fix"`            // YAML that fixes it, or what to do
}

// String is the finding as the command prints it, without the fix.
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

// Options is what the manifests do not say.
type Options struct {
	// Parameters are those of the injection. A ConfigMap lastcall-injection among
	// the objects goes before them.
	Parameters inject.Parameters
	// Minor is the cluster's version, 28 for 1.28. 0: not known, nothing depends
	// on it.
	Minor int
}

// Objects returns the findings of every rule, by file and line. It is safe for
// concurrent use.
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

// workloadRules are the rules about one workload, each with a name of its own
// in what it finds.
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
