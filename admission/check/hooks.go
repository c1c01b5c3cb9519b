package check

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"lastcall/admission/inject"
)

// hooks finds containers that stop without waiting for the drain.
func hooks(_ *input, w *workload) []Finding {
	if w.sidecar == nil {
		return nil
	}
	port := w.env.port()
	fix := fmt.Sprintf("lifecycle: {preStop: {httpGet: {%spath: /prestop, port: %d}}}", hookHost(w), port)
	var all []Finding
	for _, i := range w.apps {
		c := &w.pod.Spec.Containers[i]
		if c.Name == inject.Sidecar {
			continue
		}
		at := w.in("spec", "containers", i)
		if c.Lifecycle == nil || c.Lifecycle.PreStop == nil {
			all = append(all, w.finding("hook-missing", at,
				fmt.Sprintf("container %s has no preStop hook: it gets its SIGTERM at once, while the drain goes on", c.Name), fix))
			continue
		}
		at = append(at, "lifecycle", "preStop")
		if is := c.Lifecycle.PreStop; is.Exec != nil && inject.RunsHook(is.Exec.Command) {
			all = append(all, execHook(w, c, at, port)...)
		} else if f := otherHook(w, c, at, port, fix); f != nil {
			all = append(all, *f)
		}
	}
	return all
}

// otherHook checks a hook that does not run `lastcall hook`.
func otherHook(w *workload, c *corev1.Container, at []any, port int32, fix string) *Finding {
	found := func(rule, message, fix string) *Finding {
		f := w.finding(rule, at, fmt.Sprintf("container %s: %s", c.Name, message), fix)
		return &f
	}
	is := c.Lifecycle.PreStop
	switch {
	case is.Exec != nil:
		return found("hook-other", "its exec hook does not wait for the drain",
			fmt.Sprintf("exec: {command: [%s, hook, -grace-period, %ds, --, %s]}, or the label %s, with which it is done for you",
				inject.Program, w.grace(), strings.Join(is.Exec.Command, ", "), inject.Label))
	case is.HTTPGet != nil && is.HTTPGet.Path == "/prestop" && is.HTTPGet.Port.Type == intstr.String:
		return found("hook-port-name", fmt.Sprintf("its hook calls the port %q by name: the kubelet looks it up in this container, finds none, and stops the app at once", is.HTTPGet.Port.StrVal), fix)
	case is.HTTPGet != nil && is.HTTPGet.Path == "/prestop" && is.HTTPGet.Port.IntVal != port:
		return found("hook-port", fmt.Sprintf("its hook calls port %d, and the sidecar listens on %d: the call fails, and the app is stopped at once", is.HTTPGet.Port.IntVal, port), fix)
	case is.HTTPGet != nil && is.HTTPGet.Path == "/prestop":
		return nil
	case is.Sleep != nil:
		return found("hook-other", "its sleep hook does not wait for the drain, and the injection leaves it alone", "replace the sleep hook: "+fix)
	default:
		return found("hook-other", "its own hook does not wait for the drain, and the injection leaves it alone",
			"replace the hook, or make it an exec hook, which then runs after the drain: "+fix)
	}
}

// hookHost returns the host field of a hook. Only pods in the node's network need it.
func hookHost(w *workload) string {
	if w.pod.Spec.HostNetwork {
		return "host: 127.0.0.1, "
	}
	return ""
}

// tokens finds HTTP hooks that the sidecar will reject because of their token.
func tokens(_ *input, w *workload) []Finding {
	if w.sidecar == nil || !w.env.known("LASTCALL_TOKEN") && !w.env.hidden["LASTCALL_TOKEN"] {
		return nil
	}
	token := w.env.values["LASTCALL_TOKEN"]
	wanted := token != "" || w.env.hidden["LASTCALL_TOKEN"]
	var all []Finding
	for _, i := range w.apps {
		c := &w.pod.Spec.Containers[i]
		if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.HTTPGet == nil || c.Lifecycle.PreStop.HTTPGet.Path != "/prestop" {
			continue
		}
		headers := c.Lifecycle.PreStop.HTTPGet.HTTPHeaders
		n := slices.IndexFunc(headers, func(h corev1.HTTPHeader) bool { return strings.EqualFold(h.Name, "Authorization") })
		at := w.in("spec", "containers", i, "lifecycle", "preStop", "httpGet")
		fix := fmt.Sprintf("httpHeaders: [{name: Authorization, value: Bearer %s}]", shownToken(token))
		switch {
		case wanted && n < 0:
			all = append(all, w.finding("token", at,
				fmt.Sprintf("container %s: the sidecar asks for a token (LASTCALL_TOKEN), and the hook sends none: it is refused, and the app is stopped at once", c.Name), fix))
		case token != "" && headers[n].Value != "Bearer "+token:
			all = append(all, w.finding("token", at,
				fmt.Sprintf("container %s: the hook sends another token than LASTCALL_TOKEN: it is refused, and the app is stopped at once", c.Name), fix))
		}
	}
	return all
}
