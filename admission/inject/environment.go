package inject

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	listenName     = "LASTCALL_LISTEN"
	graceName      = "LASTCALL_GRACE_PERIOD"
	reserveName    = "LASTCALL_RESERVE"
	tokenName      = "LASTCALL_TOKEN"
	defaultReserve = "5s"
)

// variables returns the variables that the pod's annotations set.
func variables(pod *corev1.Pod) map[string]string {
	set := map[string]string{}
	for key, value := range pod.Annotations {
		if name, ok := VariableOf(key); ok {
			set[name] = value
		}
	}
	return set
}

// VariableOf returns the variable that an annotation sets: lastcall/EUREKA_APP sets
// LASTCALL_EUREKA_APP. ok reports whether the annotation sets one.
func VariableOf(annotation string) (name string, ok bool) {
	name, ok = strings.CutPrefix(annotation, prefix)
	if !ok || name == "" || name[0] < 'A' || name[0] > 'Z' {
		return "", false
	}
	for _, c := range name {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return "", false
		}
	}
	return "LASTCALL_" + name, true
}

// environment returns the sidecar's variables. A pod's annotation overrides a value
// derived from the pod's spec, which overrides the cluster's defaults. The order of
// the result is fixed. Variables of the downward API come first, so other values may
// refer to them, as in $(LASTCALL_POD_NAME).
func environment(pod *corev1.Pod, apps []corev1.Container, defaults map[string]string) []corev1.EnvVar {
	own := variables(pod)
	var env []corev1.EnvVar
	taken := map[string]bool{}
	add := func(v corev1.EnvVar) {
		taken[v.Name] = true
		if _, set := own[v.Name]; !set {
			env = append(env, v)
		}
	}
	for _, field := range []struct{ name, path string }{
		{"LASTCALL_POD_NAME", "metadata.name"},
		{"LASTCALL_POD_IP", "status.podIPs"},
		{"LASTCALL_HOST_IP", "status.hostIP"},
	} {
		add(corev1.EnvVar{Name: field.name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: field.path}}})
	}
	add(corev1.EnvVar{Name: graceName, Value: seconds(gracePeriod(pod))})
	if noTimeToDrain(pod, defaults) {
		add(corev1.EnvVar{Name: reserveName, Value: "0s"})
	}
	if ports := appPorts(apps); ports != "" {
		add(corev1.EnvVar{Name: "LASTCALL_APP_PORT", Value: ports})
	}
	rest := maps.Clone(own)
	for name, value := range defaults {
		if _, set := own[name]; !set && !taken[name] {
			rest[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		env = append(env, corev1.EnvVar{Name: name, Value: rest[name]})
	}
	return env
}

// seconds formats a number of seconds for a variable.
func seconds(n int64) string { return strconv.FormatInt(n, 10) + "s" }

// noTimeToDrain reports whether the default reserve would leave no time of the grace
// period for the drain. With such settings, the sidecar does not start.
func noTimeToDrain(pod *corev1.Pod, defaults map[string]string) bool {
	reserve, err := time.ParseDuration(lookup(reserveName, defaultReserve, defaults))
	return err == nil && reserve >= time.Duration(gracePeriod(pod))*time.Second
}

// appPorts returns the TCP ports of the app's containers in the format of
// LASTCALL_APP_PORT: without duplicates, in the order of the pod's spec.
func appPorts(apps []corev1.Container) string {
	var ports []string
	for i := range apps {
		for _, p := range apps[i].Ports {
			port := strconv.Itoa(int(p.ContainerPort))
			if (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) && !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
	}
	return strings.Join(ports, ",")
}

// listens returns the port in a value of LASTCALL_LISTEN, or DefaultPort.
func listens(value string) int32 {
	found := regexp.MustCompile(`:([0-9]{1,5})$`).FindStringSubmatch(value)
	if found == nil {
		return DefaultPort
	}
	port, err := strconv.ParseInt(found[1], 10, 32)
	if err != nil {
		return DefaultPort
	}
	return int32(port)
}

// lookup returns the value of name from the first map that holds it, or otherwise.
func lookup(name, otherwise string, in ...map[string]string) string {
	for _, m := range in {
		if value, ok := m[name]; ok {
			return value
		}
	}
	return otherwise
}
