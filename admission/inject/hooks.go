package inject

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Apps returns the indexes of the app's containers: those that the annotation names,
// or all containers if it names none that exists.
func Apps(pod *corev1.Pod) []int {
	var all, named []int
	names := strings.Split(pod.Annotations[Container], ",")
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	for i := range pod.Spec.Containers {
		all = append(all, i)
		if slices.Contains(names, pod.Spec.Containers[i].Name) {
			named = append(named, i)
		}
	}
	if len(named) > 0 {
		return named
	}
	return all
}

// hookKind is the kind of a container's preStop hook.
type hookKind int

const (
	noHook    hookKind = iota
	callsUs            // an httpGet of /prestop on the sidecar's port
	runsUs             // an exec of `lastcall hook`
	wrappable          // another exec hook
	kept               // a hook that cannot be wrapped
)

// hookOf returns the kind of c's preStop hook. An exec hook cannot be wrapped if
// another volume is mounted at Folder.
func hookOf(c *corev1.Container, port int32) hookKind {
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil {
		return noHook
	}
	switch hook := c.Lifecycle.PreStop; {
	case hook.Exec != nil && RunsHook(hook.Exec.Command):
		return runsUs
	case hook.Exec != nil && !mountsOther(c):
		return wrappable
	case hook.HTTPGet != nil && hook.HTTPGet.Path == "/prestop" && hook.HTTPGet.Port == intstr.FromInt32(port):
		return callsUs
	default:
		return kept
	}
}

// RunsHook reports whether a hook's command is `lastcall hook`.
func RunsHook(command []string) bool {
	return len(command) > 1 && (command[0] == "lastcall" || strings.HasSuffix(command[0], "/lastcall")) && command[1] == "hook"
}

// mountsOther reports whether c mounts a volume other than the shared one at Folder.
func mountsOther(c *corev1.Container) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == Folder && m.Name != Volume })
}

func mountsAny(c *corev1.Container) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == Folder })
}

// hookCall holds the settings that a hook needs to call the sidecar.
type hookCall struct {
	port                  int32
	token, grace, reserve string
}

// callOf returns the settings for a hook, which equal those of the sidecar.
func callOf(pod *corev1.Pod, own, defaults map[string]string) hookCall {
	c := hookCall{
		port:    listens(lookup(listenName, "", own, defaults)),
		token:   lookup(tokenName, "", own, defaults),
		grace:   lookup(graceName, seconds(gracePeriod(pod)), own),
		reserve: lookup(reserveName, "", own, defaults),
	}
	if _, set := own[reserveName]; !set && noTimeToDrain(pod, defaults) {
		c.reserve = "0s"
	}
	return c
}

// addHook adds the hook to c or wraps its exec hook, and leaves other hooks unchanged.
func (h hookCall) addHook(c *corev1.Container, kind hookKind) {
	switch kind {
	case noHook:
		if c.Lifecycle == nil {
			c.Lifecycle = &corev1.Lifecycle{}
		}
		c.Lifecycle.PreStop = &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/prestop", Port: intstr.FromInt32(h.port)}}
		if h.token != "" {
			c.Lifecycle.PreStop.HTTPGet.HTTPHeaders = []corev1.HTTPHeader{{Name: "Authorization", Value: "Bearer " + h.token}}
		}
	case wrappable:
		exec := c.Lifecycle.PreStop.Exec
		exec.Command = append(h.command(), exec.Command...)
	case callsUs, runsUs, kept:
	}
}

// command returns the command `lastcall hook` with its flags, up to "--". All settings
// are flags: the hook runs in the app's container, which does not have the sidecar's
// variables.
func (h hookCall) command() []string {
	command := []string{Program, "hook", "-grace-period", h.grace, "-port", strconv.Itoa(int(h.port))}
	if h.reserve != "" {
		command = append(command, "-reserve", h.reserve)
	}
	if h.token != "" {
		command = append(command, "-token", h.token)
	}
	return append(command, "--")
}
