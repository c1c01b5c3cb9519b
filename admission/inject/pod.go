package inject

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Pod returns a copy of the pod with the sidecar, and warnings for the user: plain
// sentences, each about something that would lose requests. A pod for which Skip
// returns a reason is returned unchanged; if it has the label, the reason is a
// warning.
//
// The result depends only on the arguments, and Pod does not change a pod that it has
// already changed.
func Pod(pod *corev1.Pod, p Parameters) (*corev1.Pod, []string) {
	out := pod.DeepCopy()
	if reason := Skip(pod); reason != "" {
		if pod.Labels[Label] != "true" {
			return out, nil
		}
		return out, []string{"lastcall: no sidecar was added: " + reason}
	}

	var warnings []string
	own := variables(pod)
	call := callOf(pod, own, p.Defaults)
	chosen := Apps(pod)
	var apps []corev1.Container
	needsProgram := false
	for _, i := range chosen {
		apps = append(apps, pod.Spec.Containers[i])
		c := &out.Spec.Containers[i]
		kind := hookOf(c, call.port)
		call.addHook(c, kind)
		if !mountsAny(c) {
			c.VolumeMounts = append(c.VolumeMounts, sharedMount())
		}
		needsProgram = needsProgram || kind == wrappable || kind == runsUs
		if kind == kept {
			out.Labels[Unhooked] = "true"
			warnings = append(warnings, keptWarning(c))
		}
	}
	out.Labels[selectorLabel] = "sidecar"

	added := sidecar(pod, p, environment(pod, apps, p.Defaults), call.port)
	if needsProgram {
		install(&added)
	}
	out.Spec.InitContainers = append(out.Spec.InitContainers, added)
	if !slices.ContainsFunc(out.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == Volume }) {
		out.Spec.Volumes = append(out.Spec.Volumes, corev1.Volume{Name: Volume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	}
	return out, warnings
}

func keptWarning(c *corev1.Container) string {
	is := "preStop hook"
	switch hook := c.Lifecycle.PreStop; {
	case hook.HTTPGet != nil:
		is = "httpGet hook"
	case hook.Sleep != nil:
		is = "sleep hook"
	case hook.Exec != nil:
		is = "exec hook, with another volume at " + Folder + ","
	}
	return fmt.Sprintf("lastcall: container %s keeps its own %s: it is stopped without waiting for the drain. Remove the hook, or make it an exec hook, which then runs after the drain", c.Name, is)
}
