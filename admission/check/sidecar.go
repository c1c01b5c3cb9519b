package check

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// sidecarProbes finds a liveness probe or a preStop hook in the sidecar, which it must
// not have, and a missing or wrong readiness probe.
func sidecarProbes(_ *input, w *workload) []Finding {
	if w.sidecar == nil {
		return nil
	}
	var all []Finding
	if w.sidecar.LivenessProbe != nil {
		all = append(all, w.finding("sidecar-liveness", w.below("livenessProbe"),
			"the sidecar has a livenessProbe: a busy node could have it restarted in the middle of a drain, which ends the hook",
			"remove the sidecar's livenessProbe"))
	}
	if w.sidecar.Lifecycle != nil && w.sidecar.Lifecycle.PreStop != nil {
		all = append(all, w.finding("sidecar-prestop", w.below("lifecycle", "preStop"),
			"the sidecar has a preStop hook: it begins a drain whenever the sidecar alone is restarted, and holds the sidecar up",
			"remove the sidecar's preStop"))
	}
	port := w.env.port()
	ready := w.sidecar.ReadinessProbe
	if ready == nil || ready.HTTPGet == nil || ready.HTTPGet.Path != "/readyz" {
		all = append(all, w.finding("readiness", w.below("readinessProbe"),
			"the sidecar has no readinessProbe on /readyz: the pod stays in its Services while it drains",
			fmt.Sprintf("readinessProbe: {httpGet: {path: /readyz, port: %d}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 5}", port)))
	} else if got := ready.HTTPGet.Port; got.IntVal != port && !named(w.sidecar, got.StrVal, port) {
		all = append(all, w.finding("readiness", w.below("readinessProbe"),
			fmt.Sprintf("the sidecar's readinessProbe calls port %s, and it listens on %d: the pod never gets ready", got.String(), port),
			fmt.Sprintf("readinessProbe: {httpGet: {path: /readyz, port: %d}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 5}", port)))
	}
	return all
}

// named reports whether c has a port of that name and number.
func named(c *corev1.Container, name string, port int32) bool {
	return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name && p.ContainerPort == port })
}

// FirstNative is the first minor version of Kubernetes in which native sidecars are
// enabled by default (feature gate SidecarContainers, beta in 1.29).
const FirstNative = 29

// sidecarKind finds sidecars among the init containers that do not run as native
// sidecars.
func sidecarKind(in *input, w *workload) []Finding {
	if w.sidecar == nil || !w.native {
		return nil
	}
	if w.sidecar.RestartPolicy == nil || *w.sidecar.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		return []Finding{w.finding("native-sidecar", w.at,
			"the sidecar is an init container without restartPolicy: the app waits for its end, which does not come",
			"restartPolicy: Always")}
	}
	if in.Minor > 0 && in.Minor < FirstNative {
		return []Finding{w.finding("native-sidecar-version", w.at,
			fmt.Sprintf("Kubernetes 1.%d has no native sidecars, they came with 1.%d: the app would wait for the end of an init container that does not end", in.Minor, FirstNative),
			"make it an ordinary container, as in deploy/deployment.yaml: move it to containers, without restartPolicy and startupProbe")}
	}
	return nil
}

// appPort finds sidecars that count no work, or count it on a port that is not the
// app's.
func appPort(_ *input, w *workload) []Finding {
	const name = "LASTCALL_APP_PORT"
	if w.sidecar == nil || !w.env.known(name) {
		return nil
	}
	var declared []string
	for _, i := range w.apps {
		if c := &w.pod.Spec.Containers[i]; c.Name != w.sidecar.Name {
			for _, p := range c.Ports {
				declared = append(declared, strconv.Itoa(int(p.ContainerPort)))
			}
		}
	}
	at, fixed := w.below("env"), "8080"
	if len(declared) > 0 {
		fixed = declared[0]
	}
	fix := fmt.Sprintf("- {name: %s, value: %q}", name, fixed)
	if w.injected() {
		at, fix = w.in("metadata", "annotations"), fmt.Sprintf("lastcall/APP_PORT: %q", fixed)
	}
	ports := w.env.list(name)
	if len(ports) == 0 {
		if len(w.env.list("LASTCALL_COUNTERS")) > 0 || !w.env.known("LASTCALL_COUNTERS") {
			return nil
		}
		return []Finding{w.finding("app-port", at,
			name+" is not set: no work is counted, so the app is stopped while it still answers requests", fix)}
	}
	for _, port := range ports {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return []Finding{w.finding("app-port", at, fmt.Sprintf("%s=%q is no number: the sidecar does not start", name, port), fix)}
		}
		if port == strconv.Itoa(int(w.env.port())) {
			return []Finding{w.finding("app-port", at,
				fmt.Sprintf("%s=%s is the port that the sidecar itself listens on: it does not start", name, port), fix)}
		}
	}
	if len(declared) > 0 && !slices.ContainsFunc(ports, func(p string) bool { return slices.Contains(declared, p) }) {
		return []Finding{w.finding("app-port", at,
			fmt.Sprintf("%s=%s is none of the app's containerPorts: its requests are not seen", name, w.env.values[name]), fix)}
	}
	return nil
}
