package check

import (
	"fmt"
	"strings"
	"time"

	"lastcall/admission/inject"
)

// notInjected finds pods that request the sidecar but do not get it, and annotations
// that name a container that the pod does not have.
func notInjected(_ *input, w *workload) []Finding {
	if w.skipped != "" && w.sidecar == nil && w.grace() > 0 && !w.pod.Spec.HostNetwork {
		return []Finding{w.finding("not-injected", w.in("metadata", "labels", inject.Label),
			"no sidecar is added: "+w.skipped, "remove the label "+inject.Label)}
	}
	name := w.given.Annotations[inject.Container]
	if name == "" || !w.injected() {
		return nil
	}
	var all []Finding
	for part := range strings.SplitSeq(name, ",") {
		found := false
		for i := range w.given.Spec.Containers {
			found = found || w.given.Spec.Containers[i].Name == strings.TrimSpace(part)
		}
		if !found {
			all = append(all, w.finding("unknown-container", w.in("metadata", "annotations", inject.Container),
				fmt.Sprintf("the annotation %s names %q, which is no container of the pod", inject.Container, strings.TrimSpace(part)),
				fmt.Sprintf("%s: %s", inject.Container, w.given.Spec.Containers[0].Name)))
		}
	}
	return all
}

// graceZero finds pods that are killed at once, because their grace period is 0.
func graceZero(_ *input, w *workload) []Finding {
	if w.grace() > 0 {
		return nil
	}
	needed, _ := w.env.drain(time.Minute).NeededBudget()
	return []Finding{w.finding("grace-period-zero", w.in("spec", "terminationGracePeriodSeconds"),
		"terminationGracePeriodSeconds is 0: the pod is killed at once, no hook is called, and every request in flight is lost",
		graceFix(max(needed+w.env.drain(time.Minute).Reserve, 30*time.Second)))}
}

// graceMismatch finds sidecars whose LASTCALL_GRACE_PERIOD is not the pod's grace
// period.
func graceMismatch(_ *input, w *workload) []Finding {
	const name = "LASTCALL_GRACE_PERIOD"
	if w.sidecar == nil || w.grace() < 1 || !w.env.known(name) {
		return nil
	}
	configured := w.env.duration(name, 30*time.Second)
	grace := time.Duration(w.grace()) * time.Second
	if configured == grace {
		return nil
	}
	message := fmt.Sprintf("LASTCALL_GRACE_PERIOD is %s, and the pod's grace period is %s: ", short(configured), short(grace))
	if configured > grace {
		message += "the pod is killed before the drain ends"
	} else {
		message += "the drain gives up earlier than it has to"
	}
	if w.injected() {
		return []Finding{w.finding("grace-period-mismatch", w.in("metadata", "annotations", "lastcall/GRACE_PERIOD"), message,
			"remove the annotation lastcall/GRACE_PERIOD: the injection takes it from the pod")}
	}
	return []Finding{w.finding("grace-period-mismatch", w.below("env"), message,
		fmt.Sprintf("- {name: %s, value: %ds}", name, w.grace()))}
}

// graceShort finds grace periods that are too short for clients to forget the pod.
func graceShort(_ *input, w *workload) []Finding {
	if w.sidecar == nil || w.grace() < 1 || !w.env.known("LASTCALL_REGISTRIES") && len(w.env.list("LASTCALL_REGISTRIES")) == 0 {
		return nil
	}
	c := w.env.drain(time.Duration(w.grace()) * time.Second)
	needed, sum := c.NeededBudget()
	if needed <= c.Budget() {
		return nil
	}
	return []Finding{w.finding("grace-period-short", w.in("spec", "terminationGracePeriodSeconds"),
		fmt.Sprintf("the grace period of %s leaves %s to a drain that may take %s (%s), and more by the longest request: clients still send requests when the app is stopped",
			short(c.GracePeriod), short(max(c.Budget(), 0)), short(needed), sum),
		graceFix(needed+c.Reserve)+w.toldFix(needed+c.Reserve))}
}

func graceFix(d time.Duration) string {
	return fmt.Sprintf("terminationGracePeriodSeconds: %d", seconds(d))
}

// toldFix returns the change to LASTCALL_GRACE_PERIOD that goes with a grace period
// of d. It is empty if the injection sets the variable.
func (w *workload) toldFix(d time.Duration) string {
	if w.injected() {
		return ""
	}
	return fmt.Sprintf("\n- {name: LASTCALL_GRACE_PERIOD, value: %ds}", seconds(d))
}

// seconds returns d in seconds, rounded up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// short formats a duration without trailing zero units: 1m30s, 2m.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
