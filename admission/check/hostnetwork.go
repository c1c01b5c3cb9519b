package check

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"lastcall/admission/inject"
)

// hostNetwork finds settings that are missing in pods in the node's network.
// deploy/README.md explains why they are needed.
func hostNetwork(_ *input, w *workload) []Finding {
	if !w.pod.Spec.HostNetwork {
		return nil
	}
	if w.sidecar == nil {
		return []Finding{w.finding("host-network", w.in("spec", "hostNetwork"),
			"the pod is in its node's network, so no sidecar is added: it needs a port and a token of its own",
			"add the sidecar yourself, as in deploy/deployment-host-network-native.yaml, and remove the label "+inject.Label)}
	}
	var all []Finding
	found := func(path []any, message, fix string) {
		all = append(all, w.finding("host-network", path, "in its node's network: "+message, fix))
	}
	port := w.env.port()
	if port == inject.DefaultPort && w.env.known("LASTCALL_LISTEN") {
		found(w.below("env"), fmt.Sprintf("the sidecar listens on %d, as every other does: the second such pod of a node cannot start, and its hook would reach the first", port),
			`- {name: LASTCALL_LISTEN, value: ":9099"} # a port that no other app has on the node`)
	}
	if w.env.known("LASTCALL_TOKEN") && w.env.values["LASTCALL_TOKEN"] == "" {
		found(w.below("env"), "the sidecar has no token: the hook of another pod would begin its drain",
			fmt.Sprintf("- {name: LASTCALL_TOKEN, value: %s} # the app's name will do", w.Name))
	}
	for _, i := range w.apps {
		c := &w.pod.Spec.Containers[i]
		if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.HTTPGet == nil {
			continue
		}
		if call := c.Lifecycle.PreStop.HTTPGet; call.Path == "/prestop" && call.Host == "" {
			found(w.in("spec", "containers", i, "lifecycle", "preStop", "httpGet"),
				fmt.Sprintf("container %s: the kubelet finds no address for the hook, and stops the app at once", c.Name),
				fmt.Sprintf("httpGet: {host: 127.0.0.1, path: /prestop, port: %d}", port))
		}
	}
	if p := w.pod.Spec.DNSPolicy; p == "" || p == corev1.DNSClusterFirst {
		if len(w.env.list("LASTCALL_REGISTRIES")) > 0 {
			found(w.in("spec", "dnsPolicy"), "the names of Services, such as a registry's, are not found",
				"dnsPolicy: ClusterFirstWithHostNet")
		}
	}
	return all
}
