package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"lastcall/e2e/load"
)

// registry is a real registry server in a pod. Apps register with the name of their
// namespace as the service and the name of their pod as the id.
type registry struct {
	server *scenario // the scenario in which the server runs
	kind   string    // the name in LASTCALL_REGISTRIES
	// settings returns the environment of the sidecar for a scenario's app.
	settings func(*scenario) map[string]string
	// announce changes the app's container so that the app registers itself.
	announce func(s *scenario, main *corev1.Container, forgetful bool)
	// clients are the flags of `app discover`.
	clients []string
	// ask returns the status of all instances of a name, by id.
	ask func(name string) (map[string]string, error)
	// up is the status of an instance in service, and out is that of an instance
	// that Lastcall has withdrawn. ending is the status that an app sets when it
	// ends, or empty if it sets none.
	up, out, ending string
	// registersWithin is how many seconds an app may take to register after it is
	// ready. The next pod must not end before that: see docs/operations.md.
	registersWithin int32
}

// runServer runs a registry's server in a pod behind a Service, and returns the Service's
// HOST:PORT. The pod is ready when the server answers the path ready or, if that is
// empty, accepts connections.
func (s *scenario) runServer(name string, port int, ready string, command ...string) string {
	s.Helper()
	labels := map[string]string{"app": name}
	_, err := s.client.CoreV1().Pods(s.namespace).Create(s.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: new(false),
			SecurityContext:              &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Volumes:                      []corev1.Volume{temporary()},
			Containers: []corev1.Container{{
				Name: "server", Image: registriesImage(), Command: command,
				ReadinessProbe:  serverProbe(port, ready),
				SecurityContext: restricted(), Resources: corev1.ResourceRequirements{Requests: requests("10m", "128Mi")},
				VolumeMounts: []corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}},
			}},
		},
	}, metav1.CreateOptions{})
	s.must("creating "+name, err)
	service, err := s.client.CoreV1().Services(s.namespace).Create(s.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: int32(port), TargetPort: intstr.FromInt(port)}}},
	}, metav1.CreateOptions{})
	s.must("creating a Service", err)
	s.ready(app{name: name, replicas: 1})
	return fmt.Sprintf("%s:%d", service.Spec.ClusterIP, port)
}

func serverProbe(port int, path string) *corev1.Probe {
	p := probe(port, path, 1, 1)
	if path == "" {
		p.ProbeHandler = takesConnections(port)
	}
	return p
}

func takesConnections(port int) corev1.ProbeHandler {
	return corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(port)}}
}

// registriesImage returns the image with the servers and the Java app.
func registriesImage() string {
	return cmp.Or(os.Getenv("E2E_REGISTRIES_IMAGE"), "localhost/lastcall-e2e-registries:1")
}

func temporary() corev1.Volume {
	return corev1.Volume{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
}

// podSpec returns the pod spec of an app that registers itself. A forgetful app does not
// deregister at its end.
func (r registry) podSpec(s *scenario, a app, forgetful bool) corev1.PodSpec {
	settings := r.settings(s)
	settings["LASTCALL_REGISTRIES"] = r.kind
	maps.Copy(settings, a.lastcall)
	a.lastcall = settings
	spec := a.podSpec()
	spec.Volumes = append(spec.Volumes, temporary())
	main := &spec.Containers[0]
	main.Env = append(main.Env, fromPod("POD_IPS", "status.podIPs"))
	main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: "tmp", MountPath: "/tmp"})
	r.announce(s, main, forgetful)
	return spec
}

// load begins a load of clients that find the scenario's pods in the registry.
func (r registry) load(s *scenario) clients {
	s.Helper()
	return s.loadBy(append([]string{"discover", "-name", s.namespace}, r.clients...)...)
}

// holds waits until the registry holds exactly one instance in service for each of the
// app's pods, and no other instances.
func (r registry) holds(s *scenario, a app) {
	s.Helper()
	want := map[string]string{}
	for _, p := range s.podsOf(a) {
		want[p.Name] = r.up
	}
	s.eventually(fmt.Sprintf("%s holds just %v", r.kind, want), func(context.Context) (bool, error) {
		got, err := r.ask(s.namespace)
		return err == nil && maps.Equal(got, want), errors.Join(fmt.Errorf("it holds %v", got), err)
	})
}

// judge checks the counts of clients that use the registry. A pod loses requests if it is
// not withdrawn from the registry, or does not wait for the registry's clients. So
// requests must also fail with `sleep 30`, only later.
func (r registry) judge(s *scenario, v variant, counts load.Counts) {
	s.Helper()
	s.judge(v, counts)
	if v == sleep30 && counts.Failed == 0 {
		s.Errorf("none of %d requests failed with `sleep 30`: the load is too weak", counts.Requests)
	}
}

// rollingRestart is a scenario with a Deployment whose clients use the registry.
func (r registry) rollingRestart(s *scenario, name string, web app) {
	s.Helper()
	web.minReady = r.registersWithin
	s.createDeployment(web, r.podSpec(s, web, false))
	s.ready(web)
	r.holds(s, web)
	clients := r.load(s)
	s.restart(web)
	clients.more(40)
	counts := clients.stop()
	results.add(name, web.variant, counts, s.longest(web))
	r.judge(s, web.variant, counts)
	s.wentWell(web)
	if web.variant.lastcall() {
		r.holds(s, web) // without Lastcall, an instance sometimes stays, with the status DOWN
	}
}

// livenessFails is a scenario in which an app is only restarted. It is withdrawn from the
// registry meanwhile, and in service again afterwards.
func (r registry) livenessFails(s *scenario, name string, web app, sicken func(pod string)) {
	s.Helper()
	s.createDeployment(web, r.podSpec(s, web, false))
	s.ready(web)
	r.holds(s, web)
	counts := s.livenessFails(web, r.load(s), sicken)
	results.add(name, web.variant, counts, 0)
	r.judge(s, web.variant, counts)
	r.holds(s, web)
}

// createStatefulSet creates a StatefulSet of an app that does not deregister itself, and
// waits until its pods are in service.
func (r registry) createStatefulSet(s *scenario, web app) {
	s.Helper()
	web.minReady = r.registersWithin
	s.createStatefulSet(web, r.podSpec(s, web, true))
	s.ready(web)
	r.holds(s, web)
}

// statefulSetRestarts is a scenario in which each new pod has the same id as the previous
// one.
func (r registry) statefulSetRestarts(s *scenario, name string, web app) {
	s.Helper()
	r.createStatefulSet(s, web)
	clients := r.load(s)
	s.restartStatefulSet(web)
	r.holds(s, web)
	clients.more(40)
	counts := clients.stop()
	results.add(name, web.variant, counts, s.longest(web))
	r.judge(s, web.variant, counts)
	s.wentWell(web)
}

// withdrawn deletes a pod, and waits until the registry holds it as withdrawn.
func (r registry) withdrawn(s *scenario, pod *corev1.Pod) {
	s.Helper()
	s.deleted(pod)
	s.eventually("the pod is withdrawn", func(context.Context) (bool, error) {
		got, err := r.ask(s.namespace)
		return got[pod.Name] == r.out, errors.Join(fmt.Errorf("%s holds %v", r.kind, got), err)
	})
}

// cutShort kills the sidecar in the middle of a drain, so the withdrawal stays in the
// registry. The next pod has the same id and must be in service.
func (r registry) cutShort(s *scenario, web app, kill func(pod string)) {
	s.Helper()
	pod := s.podsOf(web)[0]
	r.withdrawn(s, pod)
	before := s.outcomes(pod.Name) // of earlier pods with that name
	kill(pod.Name)
	if got := s.outcomes(pod.Name); len(got) != len(before) {
		s.Errorf("the drain ended: %q, want it cut off", got[len(before):])
	}
	s.eventually("the withdrawal of "+pod.Name+" is left behind", func(context.Context) (bool, error) {
		got, err := r.ask(s.namespace)
		status, left := got[pod.Name]
		return left && (status == r.out || status == r.ending), errors.Join(fmt.Errorf("%s holds %v", r.kind, got), err)
	})
	s.replaced(web, uids([]*corev1.Pod{pod}))
	r.holds(s, web)
}

// hurried deletes a pod with a grace period of 1 s instead of its own. The next pod has
// the same id and must be in service.
func (r registry) hurried(s *scenario, web app) {
	s.Helper()
	pod := s.podsOf(web)[0]
	s.must("deleting the pod", s.client.CoreV1().Pods(s.namespace).Delete(s.ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))}))
	s.replaced(web, uids([]*corev1.Pod{pod}))
	r.holds(s, web)
}

// leavesWithoutRegistry is a scenario in which the registry is gone. A pod must still end
// on time, no request of its Service's clients may fail, and Events must report why the
// pod was not withdrawn.
func (s *scenario) leavesWithoutRegistry(kind string, web app, spec corev1.PodSpec, gone func()) {
	s.Helper()
	s.allowEvents()
	spec.AutomountServiceAccountToken = new(true)
	s.createDeployment(web, spec)
	address := s.service(web.name)
	s.ready(web)
	gone()
	clients := s.load(address)
	pod := s.podsOf(web)[0]
	s.deleted(pod)
	events := s.told(pod, "Draining", "RegistryUnreachable", "DrainExpired")
	s.Logf("%s; %s", events[1].Message, events[2].Message)
	s.waitForPods("the pod is gone", func(pods []*corev1.Pod) bool { return byName(pods, pod.Name) == nil })
	clients.more(20)
	counts := clients.stop()
	results.add(kind+" is gone, a pod is deleted, clients of a Service", web.variant, counts, s.longest(web))
	s.noneFailed(counts)
	s.ended(pod.Name, "expired")
	s.onTime(web)
}
