package check

import (
	"fmt"
	"slices"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// leastReady is the smallest acceptable minReadySeconds for pods that clients find in
// a registry: an app registers some moments after it is ready.
const leastReady = 5

// discovery returns the registries in which clients look up pods. In the other
// registries, a pod is a member of the app's own cluster.
func discovery() []string { return []string{"consul", "dubbo", "eureka", "nacos", "spring"} }

// minReady finds rollouts that stop old pods before clients know the new ones.
func minReady(_ *input, w *workload) []Finding {
	if w.sidecar == nil || w.spec.MinReadySeconds >= leastReady || w.env.values["LASTCALL_READY_WHEN_LISTED"] == "true" {
		return nil
	}
	if !slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet", "Rollout"}, w.Kind) {
		return nil
	}
	for _, r := range w.env.drain(time.Minute).Registries {
		if !slices.Contains(discovery(), r.Name) {
			continue
		}
		return []Finding{w.finding("min-ready-seconds", []any{"spec", "minReadySeconds"},
			fmt.Sprintf("minReadySeconds is %d: a new pod is ready before it is registered in %s, so the next old one is stopped before clients know the new one (up to %s later)",
				w.spec.MinReadySeconds, r.Name, short(r.ServerCache+r.ClientRefresh)),
			fmt.Sprintf("minReadySeconds: %d", max(leastReady, seconds(r.ServerCache+r.ClientRefresh))))}
	}
	return nil
}

// allUnavailable finds rollouts that may leave no pod available.
func allUnavailable(in *input, w *workload) []Finding {
	replicas, known := in.replicas(w)
	if !known || replicas == 0 || w.sidecar == nil {
		return nil
	}
	switch w.Kind {
	case "Deployment":
		return deploymentUnavailable(w, replicas)
	case "StatefulSet":
		if replicas == 1 && w.spec.UpdateStrategy.Type != "OnDelete" {
			return []Finding{w.finding("all-unavailable", []any{"spec", "replicas"},
				"there is one replica: while it is replaced nobody answers", "replicas: 2")}
		}
	}
	return nil
}

func deploymentUnavailable(w *workload, replicas int) []Finding {
	const fix = "strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}"
	if w.spec.Strategy.Type == "Recreate" {
		return []Finding{w.finding("all-unavailable", []any{"spec", "strategy"},
			"the strategy Recreate stops all pods before it starts new ones: nobody answers in between", fix)}
	}
	most := intstr.FromString("25%")
	if r := w.spec.Strategy.RollingUpdate; r != nil && r.MaxUnavailable != nil {
		most = *r.MaxUnavailable
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(&most, replicas, false)
	if err != nil || n < replicas {
		return nil
	}
	return []Finding{w.finding("all-unavailable", []any{"spec", "strategy", "rollingUpdate", "maxUnavailable"},
		fmt.Sprintf("maxUnavailable is %s of %d replicas: a rollout may stop all of them before a new one is ready", most.String(), replicas), fix)}
}

// budgets finds PodDisruptionBudgets that never allow an eviction. They block a node
// drain forever, and an operator who gives up waiting deletes the pods by force.
func budgets(in *input) []Finding {
	var all []Finding
	for i := range in.objects {
		o := &in.objects[i]
		var pdb policyv1.PodDisruptionBudget
		if o.Kind != "PodDisruptionBudget" || o.decode(&pdb) != nil {
			continue
		}
		for n := range in.workloads {
			w := &in.workloads[n]
			if w.Namespace != o.Namespace || !w.selects(pdb.Spec.Selector) {
				continue
			}
			if field := blocks(in, w, &pdb.Spec); field != "" {
				all = append(all, Finding{
					Rule: "pdb-blocks", File: o.File, Line: o.line("spec", field), Object: o.title(),
					Message: fmt.Sprintf("it never allows the eviction of a pod of %s: every drain of their nodes waits until it is given up or forced", w.title()),
					Fix:     "maxUnavailable: 1",
				})
				break
			}
		}
	}
	return all
}

// blocks returns the field that makes the budget refuse every eviction of w's pods,
// or an empty string.
func blocks(in *input, w *workload, spec *policyv1.PodDisruptionBudgetSpec) string {
	replicas, known := in.replicas(w)
	if spec.MaxUnavailable != nil {
		n, err := intstr.GetScaledValueFromIntOrPercent(spec.MaxUnavailable, max(replicas, 1), true)
		if err == nil && n == 0 {
			return "maxUnavailable"
		}
	}
	if least := spec.MinAvailable; least != nil {
		n, err := intstr.GetScaledValueFromIntOrPercent(least, replicas, true)
		if err == nil && (known && replicas > 0 && n >= replicas || least.StrVal == "100%") {
			return "minAvailable"
		}
	}
	return ""
}
