package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// hostPorts are the ports of an app and its sidecar in a pod in the node's network. All
// such pods share the node's ports and its loopback interface.
type hostPorts struct{ app, sidecar int }

// Several apps run in the network of one node. Each pod's hook drains only that pod, and
// no request fails, although the sidecar sees the sockets of the whole node.
func TestHostNetwork(t *testing.T) {
	t.Parallel()
	for i, c := range []struct {
		name    string
		variant variant
		leave   int // number of apps that are scaled to 0
		build   func(s *scenario, name string, at hostPorts) []byte
	}{
		{"kustomize", native, *times, func(s *scenario, name string, at hostPorts) []byte {
			return s.kustomizedInHostNetwork(name, "native", at)
		}},
		{"kustomize", classic, *times, func(s *scenario, name string, at hostPorts) []byte {
			return s.kustomizedInHostNetwork(name, "classic", at)
		}},
		{"Helm", classic, 1, func(s *scenario, name string, at hostPorts) []byte { return s.helmInHostNetwork(name, "classic", at) }},
		{"plain manifest", native, 1, func(s *scenario, name string, at hostPorts) []byte { return s.plainInHostNetwork(name, at) }},
	} {
		t.Run(c.name+" "+string(c.variant), func(t *testing.T) {
			s := start(t)
			s.privileged()
			first := 20000 + 100*i // this scenario's first port: others run at the same time
			at := func(n int) hostPorts { return hostPorts{app: first + 2*n, sidecar: first + 2*n + 1} }

			stays := app{name: "stays", replicas: 1, variant: c.variant}
			address := s.serviceAt(stays.name, at(0).app)
			s.apply(c.build(s, stays.name, at(0)))
			var leave []app
			for n := 1; n <= c.leave; n++ {
				web := app{name: fmt.Sprintf("leaves-%d", n), replicas: 1, variant: c.variant}
				s.apply(c.build(s, web.name, at(n)))
				leave = append(leave, web)
			}
			s.ready(stays)
			for _, web := range leave {
				s.ready(web)
			}
			clients := s.load(address)
			stayed := s.podsOf(stays)[0]

			// Each app that leaves has a request in flight.
			answers := make(chan error, len(leave))
			for n, web := range leave {
				pod := s.podsOf(web)[0]
				go func() {
					_, err := s.post(pod.Name, at(n+1).app, "/work?for=8s")
					answers <- err
				}()
				s.eventually("a request in flight to "+pod.Name, func(context.Context) (bool, error) {
					status, err := s.get(pod.Name, at(n+1).sidecar, "/status")
					return oneInFlight.Match(status), errors.Join(fmt.Errorf("the status is %s", status), err)
				})
			}
			for _, web := range leave {
				s.scaleTo(web, 0)
			}
			for range leave {
				if err := <-answers; err != nil {
					s.Errorf("a request in flight: %v", err)
				}
			}
			for _, web := range leave {
				s.waitForPods("the pod of "+web.name+" is gone", func(pods []*corev1.Pod) bool { return len(ofApp(pods, web.name)) == 0 })
				s.wentWell(web)
			}
			s.eventually("the pod that stays serves", func(context.Context) (bool, error) {
				status, err := s.get(stayed.Name, at(0).sidecar, "/status")
				return bytes.Contains(status, []byte(`"phase":"serving"`)) || bytes.Contains(status, []byte(`"phase": "serving"`)), err
			})
			clients.more(20)
			counts := clients.stop()
			results.add(fmt.Sprintf("%d of %d apps in one node's network leave, clients of the one that stays; made by deploy/: %s", c.leave, c.leave+1, c.name), c.variant, counts, s.longest(leave[0]))
			s.noneFailed(counts)
			if log := s.logOf(stayed.Name); strings.Contains(log, "the pod leaves") || strings.Contains(log, `"outcome"`) {
				s.Errorf("the pod that stays has drained:\n%s", log)
			}
			if !isReady(byName(s.pods.now(), stayed.Name)) {
				s.Error("the pod that stays is not ready")
			}

			// A hook that calls another pod's sidecar is refused by its token.
			wrong := app{name: "wrong", replicas: 1, variant: c.variant}
			n := c.leave + 1
			s.apply(regexp.MustCompile(`(host: 127\.0\.0\.1(?s:.*?)port: )`+fmt.Sprint(at(n).sidecar)).
				ReplaceAll(c.build(s, wrong.name, at(n)), fmt.Appendf(nil, "${1}%d", at(0).sidecar)))
			s.ready(wrong)
			s.scaleTo(wrong, 0)
			s.eventually("the hook of another pod is refused", func(context.Context) (bool, error) {
				log := s.logOf(stayed.Name)
				return strings.Contains(log, "refused a call"), fmt.Errorf("the log is\n%s", log)
			})
			if !isReady(byName(s.pods.now(), stayed.Name)) || strings.Contains(s.logOf(stayed.Name), `"outcome"`) {
				s.Errorf("the pod that stays has drained:\n%s", s.logOf(stayed.Name))
			}
		})
	}
}

// oneInFlight matches the status of a pod with one request in flight.
var oneInFlight = regexp.MustCompile(`"in_flight": *1\b`)

// An app in the node's network that the kubelet restarts is in service again afterwards,
// although the sidecar sees the sockets of the whole node.
func TestHostNetworkAppIsRestarted(t *testing.T) {
	each(t, []variant{native}, func(s *scenario, v variant) {
		s.privileged()
		const first = 20500
		pods := make([]*corev1.Pod, *times)
		for n := range pods {
			at := hostPorts{app: first + 2*n, sidecar: first + 2*n + 1}
			web := app{name: fmt.Sprintf("web-%d", n), replicas: 1, variant: v, liveness: true, flags: []string{"-deaf"}}
			web.grace = hungGrace
			s.create(web, s.inHostNetwork(web, at))
		}
		for n := range pods {
			web := app{name: fmt.Sprintf("web-%d", n), replicas: 1}
			s.ready(web)
			pods[n] = s.podsOf(web)[0]
		}
		for n, pod := range pods {
			_, err := s.post(pod.Name, first+2*n, "/sick")
			s.must("making an app sick", err)
		}
		for _, pod := range pods {
			s.waitForPods("the app of "+pod.Name+" is restarted", func(pods []*corev1.Pod) bool {
				p := byName(pods, pod.Name)
				return p != nil && restarts(p, "app") == 1 && runs(p, "app")
			})
		}
		for _, pod := range pods {
			s.within(backWithin, pod.Name+" is ready again", func(context.Context) (bool, error) {
				p := byName(s.pods.now(), pod.Name)
				return p != nil && isReady(p), nil
			})
		}
	})
}

// inHostNetwork returns the spec of the app's pod in the node's network.
func (s *scenario) inHostNetwork(a app, at hostPorts) corev1.PodSpec {
	a.lastcall = map[string]string{
		"LASTCALL_APP_PORT": fmt.Sprint(at.app), "LASTCALL_LISTEN": fmt.Sprintf(":%d", at.sidecar), "LASTCALL_TOKEN": a.name,
	}
	a.flags = append(a.flags, "-listen", fmt.Sprintf(":%d", at.app))
	spec := a.podSpec()
	spec.HostNetwork, spec.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			c := &containers[i]
			port := at.app
			if c.Name == sidecarName {
				port = at.sidecar
			}
			c.Ports[0].ContainerPort = int32(port)
			for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
				if p != nil {
					p.HTTPGet.Port.IntVal = int32(port)
				}
			}
		}
	}
	hook := spec.Containers[0].Lifecycle.PreStop.HTTPGet
	hook.Host, hook.Port.IntVal = "127.0.0.1", int32(at.sidecar)
	hook.HTTPHeaders = []corev1.HTTPHeader{{Name: "Authorization", Value: "Bearer " + a.name}}
	return spec
}

// privileged sets the Pod Security level of the scenario's namespace to privileged. No
// lower level allows pods in the node's network.
func (s *scenario) privileged() {
	s.Helper()
	_, err := s.client.CoreV1().Namespaces().Patch(s.ctx, s.namespace, types.MergePatchType,
		[]byte(`{"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}`), metav1.PatchOptions{})
	s.must("allowing pods in their node's network", err)
}

// kustomizedInHostNetwork returns the example's app with the components for pods in the
// node's network.
func (s *scenario) kustomizedInHostNetwork(name, mode string, at hostPorts) []byte {
	s.Helper()
	workload := bytes.ReplaceAll(s.read("kustomize/example/deployment.yaml"), []byte("web}"), []byte(name+"}"))
	workload = bytes.Replace(workload, []byte("  name: web\n"), []byte("  name: "+name+"\n"), 1)
	workload = bytes.Replace(workload, []byte("    spec:\n"), []byte("    spec:\n      hostNetwork: true\n      dnsPolicy: ClusterFirstWithHostNet\n"), 1)
	workload = bytes.Replace(workload, []byte("replicas: 2"), []byte("replicas: 1"), 1)
	return s.overlay(atPort(workload, at), at.flags()+fmt.Sprintf(`
configMapGenerator:
  - name: lastcall
    literals:
      - LASTCALL_GRACE_PERIOD=60s
      - LASTCALL_APP_PORT=%d
      - LASTCALL_LISTEN=:%d
      - LASTCALL_TOKEN=%s
      - LASTCALL_DRAINING_FILE=%s
components:
  - COMPONENTS/host-network/%s
`, at.app, at.sidecar, name, drainingFile, mode))
}

// helmInHostNetwork returns the rendered example chart for the node's network.
func (s *scenario) helmInHostNetwork(name, mode string, at hostPorts) []byte {
	s.Helper()
	return s.overlay(s.chart(name, "lastcall.mode="+mode, "replicas=1", fmt.Sprintf("port=%d,lastcall.appPorts={%d}", at.app, at.app),
		fmt.Sprintf("lastcall.hostNetwork=true,lastcall.port=%d,lastcall.token=%s", at.sidecar, name)), at.flags())
}

// plainInHostNetwork returns the plain manifest for the node's network.
func (s *scenario) plainInHostNetwork(name string, at hostPorts) []byte {
	s.Helper()
	text := s.read("deployment-host-network-native.yaml")
	for from, to := range map[string]string{
		"  name: web\n": "  name: " + name + "\n", "app: web": "app: " + name, "Bearer web": "Bearer " + name, "value: web\n": "value: " + name + "\n",
		"replicas: 2": "replicas: 1", "9099": fmt.Sprint(at.sidecar),
	} {
		text = bytes.ReplaceAll(text, []byte(from), []byte(to))
	}
	return s.overlay(atPort(text, at), at.flags())
}

// atPort changes the app's port in a manifest.
func atPort(manifest []byte, at hostPorts) []byte {
	return bytes.ReplaceAll(manifest, []byte("8080"), fmt.Append(nil, at.app))
}

// flags returns the part of a kustomization that makes the app listen on its port.
func (at hostPorts) flags() string {
	return fmt.Sprintf(`  - target: {group: apps}
    patch: '[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "-listen"}, {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": ":%d"}]'
`, at.app)
}
