package e2e

import (
	"cmp"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	sidecarName = "lastcall"
	sidecarPort = 8099
	appPort     = 8080
	// drainingFile is on the volume that the app and the sidecar share.
	drainingFile = "/lastcall/draining"
)

// variant is what a pod uses to end without failed requests.
type variant string

const (
	bare    variant = "no sidecar"
	sleep30 variant = "sleep 30" // preStop: {sleep: {seconds: 30}}
	classic variant = "classic sidecar"
	native  variant = "native sidecar"
	// The pod has nothing but a label that requests the sidecar.
	byPolicy  variant = "native sidecar, added by the policy"
	byWebhook variant = "native sidecar, added by the webhook"
	gated     variant = "native sidecar and the gate"
)

func (v variant) injected() bool { return v == byPolicy || v == byWebhook }

func (v variant) lastcall() bool {
	return v == classic || v == native || v == gated || v.injected()
}

// app is a workload that runs e2e/app, with or without Lastcall.
type app struct {
	name     string
	replicas int
	variant  variant
	grace    time.Duration     // terminationGracePeriodSeconds; 60 s if 0
	lastcall map[string]string // further environment of the sidecar
	flags    []string          // further flags of `app serve`
	liveness bool              // the app has a liveness probe
	// probeGrace is the liveness probe's own terminationGracePeriodSeconds.
	probeGrace time.Duration
	minReady   int32 // minReadySeconds
	// ordered makes the pods of a StatefulSet start and end one after another.
	ordered bool
	// shareProcesses lets the app's /kill find the sidecar.
	shareProcesses bool
	// hook is the command that the app's exec hook runs after the drain. If it is
	// nil, the app has an HTTP hook.
	hook []string
}

func lastcallImage() string {
	return cmp.Or(os.Getenv("E2E_LASTCALL_IMAGE"), "localhost/lastcall:e2e")
}

func appImage() string {
	return cmp.Or(os.Getenv("E2E_APP_IMAGE"), "localhost/lastcall-e2e-app:1")
}

// deploy creates a Deployment of the app and its Service, and waits until all pods are
// ready. It returns the Service's address, HOST:PORT.
func (s *scenario) deploy(a app) string {
	s.Helper()
	s.createDeployment(a, a.podSpec())
	address := s.service(a.name)
	s.ready(a)
	return address
}

// createDeployment creates a Deployment of the app's replicas.
func (s *scenario) createDeployment(a app, spec corev1.PodSpec) {
	s.Helper()
	labels := map[string]string{"app": a.name}
	replicas := int32(a.replicas)
	_, err := s.client.AppsV1().Deployments(s.namespace).Create(s.ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: a.name},
		Spec: appsv1.DeploymentSpec{
			Replicas:        &replicas,
			MinReadySeconds: a.minReady,
			Selector:        &metav1.LabelSelector{MatchLabels: labels},
			Template:        corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: a.labels()}, Spec: spec},
		},
	}, metav1.CreateOptions{})
	s.must("creating a Deployment", err)
}

// service creates a Service of the app and returns its address with an IP. A name
// would not do: not every cluster has DNS, and a failed lookup would look like a
// pod's failure.
func (s *scenario) service(name string) string {
	s.Helper()
	return s.serviceAt(name, appPort)
}

// serviceAt is like service, for an app on another port.
func (s *scenario) serviceAt(name string, port int) string {
	s.Helper()
	service, err := s.client.CoreV1().Services(s.namespace).Create(s.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt(port)}},
		},
	}, metav1.CreateOptions{})
	s.must("creating a Service", err)
	return service.Spec.ClusterIP + ":80"
}

// ready waits until all pods of the app are ready.
func (s *scenario) ready(a app) {
	s.Helper()
	s.waitForPods(a.name+" is ready", func(pods []*corev1.Pod) bool { return allReady(pods, a.name, a.replicas) })
}

// podsOf returns the app's pods that are not terminating, sorted by name.
func (s *scenario) podsOf(a app) []*corev1.Pod {
	pods := slices.DeleteFunc(ofApp(s.pods.now(), a.name), func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return pods
}

// restart restarts the Deployment, and waits until all pods are new and ready and the
// old ones are gone.
func (s *scenario) restart(a app) {
	s.Helper()
	old := uids(s.podsOf(a))
	kind, patch := restartedAt(time.Now())
	_, err := s.client.AppsV1().Deployments(s.namespace).Patch(s.ctx, a.name, kind, patch, metav1.PatchOptions{})
	s.must("restarting "+a.name, err)
	s.replaced(a, old)
}

// replaced waits until all pods of the app are ready and none of them is in old.
func (s *scenario) replaced(a app, old map[types.UID]bool) {
	s.Helper()
	s.waitForPods("new pods of "+a.name, func(pods []*corev1.Pod) bool { return replaced(pods, a.name, a.replicas, old) })
}

// longest returns the longest time from the deletion of one of the app's pods until
// the pod was gone.
func (s *scenario) longest(a app) time.Duration {
	var longest time.Duration
	for _, t := range s.pods.terminations(a.name) {
		longest = max(longest, t.took)
	}
	return longest
}

// labels returns the labels of the app's pods.
func (a app) labels() map[string]string {
	labels := map[string]string{"app": a.name}
	switch {
	case a.variant.injected():
		labels["lastcall/inject"] = "true"
	case a.variant == gated:
		labels["lastcall/gate"] = "true"
	}
	return labels
}

func (a app) gracePeriod() time.Duration { return cmp.Or(a.grace, time.Minute) }

func (a app) podSpec() corev1.PodSpec {
	main := corev1.Container{
		Name:            "app",
		Image:           appImage(),
		Args:            append([]string{"serve"}, a.flags...),
		Env:             []corev1.EnvVar{fromPod("POD_NAME", "metadata.name")},
		Ports:           []corev1.ContainerPort{{ContainerPort: appPort}},
		ReadinessProbe:  probe(appPort, "/ready", 1, 1),
		SecurityContext: restricted(),
		Resources:       corev1.ResourceRequirements{Requests: requests("10m", "16Mi")},
	}
	if a.liveness {
		main.StartupProbe = probe(appPort, "/healthz", 1, 60)
		main.LivenessProbe = probe(appPort, "/healthz", 1, 2)
		if a.probeGrace != 0 {
			main.LivenessProbe.TerminationGracePeriodSeconds = new(int64(a.probeGrace.Seconds()))
		}
	}
	spec := corev1.PodSpec{
		TerminationGracePeriodSeconds: new(int64(a.gracePeriod().Seconds())),
		SecurityContext:               &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		AutomountServiceAccountToken:  new(false),
		ShareProcessNamespace:         &a.shareProcesses,
	}
	switch a.variant {
	case bare:
	case byPolicy, byWebhook: // only the app's own flags, and the default grace period
		main.Args = append(main.Args, "-draining-file", drainingFile)
		spec.TerminationGracePeriodSeconds = nil
	case sleep30:
		main.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 30}}}
	case classic, native, gated:
		main.Args = append(main.Args, "-draining-file", drainingFile)
		main.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: httpGet(sidecarPort, "/prestop")}}
		shared := corev1.VolumeMount{Name: "lastcall", MountPath: "/lastcall"}
		spec.Volumes = []corev1.Volume{{Name: "lastcall", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		main.VolumeMounts = []corev1.VolumeMount{shared}
		sidecar := a.sidecar()
		sidecar.VolumeMounts = []corev1.VolumeMount{shared}
		if a.hook != nil {
			// It has another name, so that /kill?program=lastcall does not kill it.
			const program = "/lastcall/waits"
			sidecar.Lifecycle = &corev1.Lifecycle{PostStart: executes("/bin/lastcall", "install", program)}
			command := []string{program, "hook", "-grace-period", a.gracePeriod().String(), "--"}
			main.Lifecycle.PreStop = executes(append(command, a.hook...)...)
		}
		if a.variant == classic {
			spec.Containers = []corev1.Container{sidecar}
			break
		}
		sidecar.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		sidecar.StartupProbe = probe(sidecarPort, "/livez", 1, 30)
		spec.InitContainers = []corev1.Container{sidecar}
	}
	spec.Containers = append([]corev1.Container{main}, spec.Containers...)
	return spec
}

// sidecar returns the sidecar, as in deploy/deployment.yaml.
func (a app) sidecar() corev1.Container {
	env := map[string]string{
		"LASTCALL_GRACE_PERIOD":  a.gracePeriod().String(),
		"LASTCALL_APP_PORT":      strconv.Itoa(appPort),
		"LASTCALL_COUNTERS":      "tcp",
		"LASTCALL_DRAINING_FILE": drainingFile,
	}
	maps.Copy(env, a.lastcall)
	c := corev1.Container{
		Name:  sidecarName,
		Image: lastcallImage(),
		Env: []corev1.EnvVar{
			fromPod("LASTCALL_POD_NAME", "metadata.name"),
			fromPod("LASTCALL_POD_IP", "status.podIPs"),
			fromPod("LASTCALL_HOST_IP", "status.hostIP"),
		},
		Ports:           []corev1.ContainerPort{{Name: "lastcall", ContainerPort: sidecarPort}},
		ReadinessProbe:  probe(sidecarPort, "/readyz", 1, 1),
		SecurityContext: restricted(),
		Resources: corev1.ResourceRequirements{
			Requests: requests("10m", "16Mi"),
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")},
		},
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: env[name]})
	}
	return c
}

func requests(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// restricted returns the security context that Pod Security "restricted" requires.
func restricted() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		ReadOnlyRootFilesystem:   new(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

func executes(command ...string) *corev1.LifecycleHandler {
	return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: command}}
}

func httpGet(port int, path string) *corev1.HTTPGetAction {
	return &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt(port)}
}

func probe(port int, path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: httpGet(port, path)}, PeriodSeconds: period, FailureThreshold: failures, TimeoutSeconds: 5}
}

func fromPod(name, field string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: field}}}
}
