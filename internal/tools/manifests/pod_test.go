package manifests

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

type sidecarKind int

const (
	anyKind sidecarKind = iota
	native
	classic
)

// defaultPort is the default port of LASTCALL_LISTEN. The manifests use it, except
// for pods in their node's network.
const defaultPort = 8099

// checkPod checks all of Lastcall's requirements for a pod.
func checkPod(t *testing.T, o objects, template *corev1.PodTemplateSpec, kind sidecarKind) {
	t.Helper()
	restricted(t, template)
	pod := &template.Spec
	sidecar, apps := split(t, pod, kind)
	values := environment(t, o, pod, sidecar, apps)
	port := intstr.FromInt32(defaultPort)
	if _, listens, found := strings.Cut(values["LASTCALL_LISTEN"], ":"); found {
		port = intstr.Parse(listens)
	}
	hooks(t, pod, apps, port, values["LASTCALL_TOKEN"])
	probes(t, sidecar, port)
	if pod.HostNetwork {
		hostNetwork(t, pod, sidecar, port)
	} else if port.IntVal != defaultPort {
		t.Errorf("the sidecar listens on %s", port.String())
	}
}

// hostNetwork checks the requirements for pods that share their node's network.
func hostNetwork(t *testing.T, pod *corev1.PodSpec, sidecar *corev1.Container, port intstr.IntOrString) {
	t.Helper()
	if port.IntVal == defaultPort {
		t.Errorf("the sidecar must not use %s, which every pod of the node shares", port.String())
	}
	if pod.DNSPolicy != corev1.DNSClusterFirstWithHostNet {
		t.Errorf("dnsPolicy %q: names of Services are not found", pod.DNSPolicy)
	}
	if len(sidecar.Ports) != 1 || sidecar.Ports[0].ContainerPort != port.IntVal {
		t.Errorf("ports %v: the scheduler does not know of %s", sidecar.Ports, port.String())
	}
}

// restricted evaluates the pod with Kubernetes' code for the Pod Security level
// "restricted". That level rejects pods in their node's network, so for these only
// the rest is checked.
func restricted(t *testing.T, pod *corev1.PodTemplateSpec) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	if pod = pod.DeepCopy(); pod.Spec.HostNetwork {
		pod.Spec.HostNetwork = false
		for i := range pod.Spec.Containers {
			if hook := pod.Spec.Containers[i].Lifecycle; hook != nil && hook.PreStop != nil && hook.PreStop.HTTPGet != nil {
				hook.PreStop.HTTPGet.Host = ""
			}
		}
	}
	for _, result := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
		if !result.Allowed {
			t.Errorf("Pod Security, restricted: %s: %s", result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
}

// split separates the sidecar from the app's containers.
func split(t *testing.T, pod *corev1.PodSpec, kind sidecarKind) (sidecar *corev1.Container, apps []corev1.Container) {
	t.Helper()
	var kinds []sidecarKind
	for i, c := range pod.InitContainers {
		if c.Name == "lastcall" {
			kinds = append(kinds, native)
			sidecar = &pod.InitContainers[i]
			if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
				t.Error("the sidecar among initContainers lacks restartPolicy: Always")
			}
			if c.StartupProbe == nil || c.StartupProbe.HTTPGet == nil || c.StartupProbe.HTTPGet.Path != "/livez" {
				t.Errorf("startupProbe %v: the app would start before the sidecar answers", c.StartupProbe)
			}
		}
	}
	for i, c := range pod.Containers {
		if c.Name == "lastcall" {
			kinds = append(kinds, classic)
			sidecar = &pod.Containers[i]
			if c.RestartPolicy != nil {
				t.Error("an ordinary container has no restartPolicy")
			}
			continue
		}
		apps = append(apps, c)
	}
	if len(kinds) != 1 || len(apps) == 0 {
		t.Fatal("want one container named lastcall, and the app's")
	}
	if kind != anyKind && kinds[0] != kind {
		t.Error("a native sidecar where an ordinary container was expected, or the other way round")
	}
	return sidecar, apps
}

func hooks(t *testing.T, pod *corev1.PodSpec, apps []corev1.Container, port intstr.IntOrString, token string) {
	t.Helper()
	host := "" // empty: the pod's
	if pod.HostNetwork {
		host = "127.0.0.1"
		if token == "" {
			t.Error("LASTCALL_TOKEN is not set: another pod's hook would be taken for this one's")
		}
	}
	for _, app := range apps {
		if execHook(t, pod, &app, port, token) {
			continue
		}
		if app.Lifecycle == nil || app.Lifecycle.PreStop == nil || app.Lifecycle.PreStop.HTTPGet == nil {
			t.Errorf("%s: no preStop httpGet", app.Name)
			continue
		}
		if app.Lifecycle.PreStop.Exec != nil || app.Lifecycle.PreStop.Sleep != nil {
			t.Errorf("%s: two preStop hooks in one, which Kubernetes refuses", app.Name)
		}
		if post := app.Lifecycle.PostStart; post != nil && post.HTTPGet != nil && post.HTTPGet.Port == port {
			t.Errorf("%s: a postStart hook fails, and the app is killed, if the sidecar is not ready yet", app.Name)
		}
		hook := app.Lifecycle.PreStop.HTTPGet
		if hook.Path != "/prestop" || hook.Port != port || hook.Host != host {
			t.Errorf("%s: the hook calls %s:%s%s, want %q, %s and /prestop",
				app.Name, hook.Host, hook.Port.String(), hook.Path, host, port.String())
		}
		if sent := (corev1.HTTPHeader{Name: "Authorization", Value: "Bearer " + token}); token != "" && !slices.Contains(hook.HTTPHeaders, sent) {
			t.Errorf("%s: the hook sends %v, want %v", app.Name, hook.HTTPHeaders, sent)
		}
	}
}

// execHook checks a preStop hook that is `lastcall hook`, and reports whether the
// hook is one.
func execHook(t *testing.T, pod *corev1.PodSpec, app *corev1.Container, port intstr.IntOrString, token string) bool {
	t.Helper()
	if app.Lifecycle == nil || app.Lifecycle.PreStop == nil || app.Lifecycle.PreStop.Exec == nil {
		return false
	}
	command := app.Lifecycle.PreStop.Exec.Command
	if len(command) < 2 || command[0] != "/lastcall/lastcall" || command[1] != "hook" {
		return false
	}
	if app.Lifecycle.PreStop.HTTPGet != nil || app.Lifecycle.PreStop.Sleep != nil {
		t.Errorf("%s: two preStop hooks in one, which Kubernetes refuses", app.Name)
	}
	if end := slices.Index(command, "--"); end >= 0 {
		command = command[:end]
	}
	flag := func(name string) string {
		if i := slices.Index(command, name); i >= 0 && i+1 < len(command) {
			return command[i+1]
		}
		return ""
	}
	if told, err := time.ParseDuration(flag("-grace-period")); err != nil || pod.TerminationGracePeriodSeconds == nil || told != time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second {
		t.Errorf("%s: the grace period of the hook %q is not the pod's", app.Name, command)
	}
	if calls := flag("-port"); calls != port.String() && (calls != "" || port.IntVal != defaultPort) {
		t.Errorf("%s: the hook %q does not call port %s", app.Name, command, port.String())
	}
	if token != "" && flag("-token") != token {
		t.Errorf("%s: the hook %q does not send the token", app.Name, command)
	}
	if !slices.ContainsFunc(app.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "lastcall" && m.MountPath == "/lastcall" }) {
		t.Errorf("%s: the volume with the hook's program is not mounted", app.Name)
	}
	return true
}

// installs reports whether the sidecar installs the hook's program on the volume.
func installs(sidecar *corev1.Container) bool {
	l := sidecar.Lifecycle
	return l != nil && l.PreStop == nil && l.PostStart != nil && l.PostStart.Exec != nil &&
		slices.Equal(l.PostStart.Exec.Command, []string{"/bin/lastcall", "install", "/lastcall"})
}

func probes(t *testing.T, sidecar *corev1.Container, port intstr.IntOrString) {
	t.Helper()
	ready := sidecar.ReadinessProbe
	if ready == nil || ready.HTTPGet == nil || ready.HTTPGet.Path != "/readyz" || ready.HTTPGet.Port != port || ready.HTTPGet.Host != "" {
		t.Errorf("readinessProbe %v, want httpGet /readyz on %s", ready, port.String())
	}
	if start := sidecar.StartupProbe; start != nil && (start.HTTPGet.Port != port || start.HTTPGet.Host != "") {
		t.Errorf("startupProbe %v, want %s", start, port.String())
	}
	if sidecar.LivenessProbe != nil || sidecar.Lifecycle != nil && !installs(sidecar) {
		t.Error("the sidecar has a livenessProbe or hooks of its own")
	}
	if security := sidecar.SecurityContext; security == nil ||
		security.ReadOnlyRootFilesystem == nil || !*security.ReadOnlyRootFilesystem {
		t.Error("the sidecar's root file system can be written")
	}
	if sidecar.Resources.Requests.Cpu().IsZero() || sidecar.Resources.Requests.Memory().IsZero() || sidecar.Resources.Limits.Memory().IsZero() {
		t.Error("the sidecar lacks requests, or a limit on memory")
	}
}

// environment checks the sidecar's environment, and returns it.
func environment(t *testing.T, o objects, pod *corev1.PodSpec, sidecar *corev1.Container, apps []corev1.Container) (values map[string]string) {
	t.Helper()
	values = map[string]string{}
	fields := map[string]string{}
	for _, from := range sidecar.EnvFrom {
		switch {
		case from.ConfigMapRef != nil:
			config := o.configMaps[from.ConfigMapRef.Name]
			if config == nil {
				t.Fatalf("there is no ConfigMap %s", from.ConfigMapRef.Name)
			}
			for name, value := range config.Data {
				values[name] = value
			}
		case from.SecretRef == nil:
			t.Errorf("envFrom of %v", from)
		}
	}
	seen := map[string]bool{}
	for _, v := range sidecar.Env {
		if seen[v.Name] {
			t.Errorf("%s is set twice", v.Name)
		}
		seen[v.Name] = true
		values[v.Name] = v.Value
		if v.ValueFrom != nil && v.ValueFrom.FieldRef != nil {
			fields[v.Name] = v.ValueFrom.FieldRef.FieldPath
			values[v.Name] = "192.0.2.1" // valid for all of them
		}
	}

	told, err := time.ParseDuration(values["LASTCALL_GRACE_PERIOD"])
	if err != nil {
		t.Errorf("LASTCALL_GRACE_PERIOD: %v", err)
	}
	if given := pod.TerminationGracePeriodSeconds; given == nil || told != time.Duration(*given)*time.Second {
		t.Errorf("LASTCALL_GRACE_PERIOD is %v, which is not terminationGracePeriodSeconds", told)
	}
	served := slices.ContainsFunc(apps, func(app corev1.Container) bool {
		return slices.ContainsFunc(app.Ports, func(p corev1.ContainerPort) bool {
			at := intstr.FromInt32(p.ContainerPort)
			return at.String() == values["LASTCALL_APP_PORT"]
		})
	})
	if !served {
		t.Errorf("LASTCALL_APP_PORT is %q, which is not a containerPort of the app", values["LASTCALL_APP_PORT"])
	}
	for name, want := range map[string]string{
		"LASTCALL_POD_NAME": "metadata.name",
		"LASTCALL_POD_IP":   "status.podIPs",
		"LASTCALL_HOST_IP":  "status.hostIP",
	} {
		if fields[name] != want {
			t.Errorf("%s comes from %q, want the field %s", name, fields[name], want)
		}
	}
	accepted(t, values)
	return values
}

// accepted checks the environment with the program itself.
func accepted(t *testing.T, values map[string]string) {
	t.Helper()
	config := exec.Command(program, "config")
	config.Env = []string{}
	for name, value := range values {
		if name != "LASTCALL_EVENTS" { // it would need a cluster
			config.Env = append(config.Env, name+"="+value)
		}
	}
	var mistakes bytes.Buffer
	config.Stderr = &mistakes
	if err := config.Run(); err != nil {
		t.Errorf("lastcall config: %v\n%s", err, &mistakes)
	}
}

func hasEnv(env []corev1.EnvVar, name, value string) bool {
	return slices.ContainsFunc(env, func(v corev1.EnvVar) bool { return v.Name == name && v.Value == value })
}
