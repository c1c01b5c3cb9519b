// Package manifests checks the plain YAML in deploy/ against Kubernetes' own
// types and its Pod Security rules, and against what Lastcall asks of a pod.
package manifests

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// port is the one of LASTCALL_LISTEN's default, which the manifests keep.
var port = intstr.FromInt32(8099)

func TestManifests(t *testing.T) {
	files, err := filepath.Glob("../../../deploy/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Glob("../../../examples/*/deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 2 {
		t.Fatalf("found %v, want the classic and the native Deployment", files)
	}
	for _, file := range append(files, examples...) {
		t.Run(filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file), func(t *testing.T) {
			d := read(t, file)
			selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
			if err != nil || !selector.Matches(labels.Set(d.Spec.Template.Labels)) {
				t.Errorf("the selector %v does not choose the pods %v (%v)", d.Spec.Selector, d.Spec.Template.Labels, err)
			}
			restricted(t, &d.Spec.Template)
			pod := &d.Spec.Template.Spec
			sidecar, apps := split(t, pod)
			hooks(t, apps)
			probes(t, sidecar)
			environment(t, pod, sidecar, apps)
		})
	}
}

// read decodes a Deployment; a field that Kubernetes does not know is an error.
func read(t *testing.T, file string) *appsv1.Deployment {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.APIVersion != "apps/v1" || d.Kind != "Deployment" {
		t.Fatalf("%s %s, want apps/v1 Deployment", d.APIVersion, d.Kind)
	}
	return &d
}

// restricted asks the code that admits pods to namespaces of that level.
func restricted(t *testing.T, pod *corev1.PodTemplateSpec) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, result := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
		if !result.Allowed {
			t.Errorf("Pod Security, restricted: %s: %s", result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
}

// split finds the sidecar, which in deploy/ is a native one if the file's name says so.
func split(t *testing.T, pod *corev1.PodSpec) (sidecar *corev1.Container, apps []corev1.Container) {
	t.Helper()
	for i, c := range pod.InitContainers {
		if c.Name == "lastcall" {
			sidecar = &pod.InitContainers[i]
			if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
				t.Error("the sidecar among initContainers lacks restartPolicy: Always")
			}
		}
	}
	for i, c := range pod.Containers {
		if c.Name == "lastcall" {
			sidecar = &pod.Containers[i]
			continue
		}
		apps = append(apps, c)
	}
	if sidecar == nil || len(apps) == 0 {
		t.Fatal("want a container named lastcall, and the app's")
	}
	native := slices.ContainsFunc(pod.InitContainers, func(c corev1.Container) bool { return c.Name == "lastcall" })
	if strings.Contains(t.Name(), "/deploy/") && native != strings.HasSuffix(t.Name(), "-native.yaml") {
		t.Errorf("native sidecar: %v, which the file's name contradicts", native)
	}
	return sidecar, apps
}

func hooks(t *testing.T, apps []corev1.Container) {
	t.Helper()
	for _, app := range apps {
		if app.Lifecycle == nil || app.Lifecycle.PreStop == nil || app.Lifecycle.PreStop.HTTPGet == nil {
			t.Errorf("%s: no preStop httpGet", app.Name)
			continue
		}
		if app.Lifecycle.PostStart != nil {
			t.Errorf("%s: a postStart that finds the sidecar not up yet kills the app", app.Name)
		}
		hook := app.Lifecycle.PreStop.HTTPGet
		if hook.Path != "/prestop" || hook.Port != port || hook.Host != "" {
			t.Errorf("%s: the hook calls %s:%s%s, want the pod's own address, %s and /prestop",
				app.Name, hook.Host, hook.Port.String(), hook.Path, port.String())
		}
	}
}

func probes(t *testing.T, sidecar *corev1.Container) {
	t.Helper()
	ready := sidecar.ReadinessProbe
	if ready == nil || ready.HTTPGet == nil || ready.HTTPGet.Path != "/readyz" || ready.HTTPGet.Port != port {
		t.Errorf("readinessProbe %v, want httpGet /readyz on %s", ready, port.String())
	}
	if sidecar.LivenessProbe != nil || sidecar.Lifecycle != nil {
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

func environment(t *testing.T, pod *corev1.PodSpec, sidecar *corev1.Container, apps []corev1.Container) {
	t.Helper()
	values, fields := map[string]string{}, map[string]string{}
	for _, v := range sidecar.Env {
		if _, twice := values[v.Name]; twice {
			t.Errorf("%s is set twice", v.Name)
		}
		values[v.Name] = v.Value
		if v.ValueFrom != nil && v.ValueFrom.FieldRef != nil {
			fields[v.Name] = v.ValueFrom.FieldRef.FieldPath
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
		t.Errorf("LASTCALL_APP_PORT is %q, which is no containerPort of the app", values["LASTCALL_APP_PORT"])
	}
	for name, want := range map[string]string{
		"LASTCALL_POD_NAME": "metadata.name",
		"LASTCALL_POD_IP":   "status.podIP",
		"LASTCALL_HOST_IP":  "status.hostIP",
	} {
		if fields[name] != want {
			t.Errorf("%s comes from %q, want the field %s", name, fields[name], want)
		}
	}
}
