package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Skip returns why the pod is left unchanged, or an empty string if the sidecar must be
// added. A missing label is such a reason too.
func Skip(pod *corev1.Pod) string {
	spec := &pod.Spec
	switch {
	case pod.Labels[Label] != "true":
		return "the pod does not have the label " + Label + ": \"true\""
	case has(spec.Containers) || has(spec.InitContainers):
		return "the pod already has a container named " + Sidecar
	case spec.HostNetwork:
		return "the pod is in its node's network: the sidecar needs a port and a token of its own there, which deploy/README.md describes"
	case spec.OS != nil && spec.OS.Name == corev1.Windows, spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows):
		return "the pod is for Windows, for which there is no image"
	case gracePeriod(pod) < 1:
		return "terminationGracePeriodSeconds is 0: the pod is killed at once, and no hook runs"
	case isMirror(pod):
		return "the pod is a static pod, which the API server cannot change"
	default:
		return ""
	}
}

func has(containers []corev1.Container) bool {
	return slices.ContainsFunc(containers, func(c corev1.Container) bool { return c.Name == Sidecar })
}

func isMirror(pod *corev1.Pod) bool {
	_, is := pod.Annotations[mirror]
	return is
}

// gracePeriod returns the pod's terminationGracePeriodSeconds, or Kubernetes'
// default.
func gracePeriod(pod *corev1.Pod) int64 {
	if pod.Spec.TerminationGracePeriodSeconds == nil {
		return corev1.DefaultTerminationGracePeriodSeconds
	}
	return *pod.Spec.TerminationGracePeriodSeconds
}
