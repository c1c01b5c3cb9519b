package e2e

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// consul runs a Consul agent. Its clients cache answers for 5 s, like clients that poll or
// cache DNS answers.
func (s *scenario) consul() registry {
	s.Helper()
	const name, port, refresh = "registry", 8500, "5s"
	address := "http://" + s.runServer(name, port, "/v1/status/leader",
		"/consul", "agent", "-dev", "-client=0.0.0.0", "-disable-host-node-id", "-log-level=warn")
	return registry{
		server: s, kind: "consul", up: "passing", out: "critical", registersWithin: 5,
		settings: func(*scenario) map[string]string {
			return map[string]string{"CONSUL_HTTP_ADDR": address, "LASTCALL_CONSUL_CLIENT_REFRESH": refresh}
		},
		announce: func(in *scenario, main *corev1.Container, forgetful bool) {
			command := []string{"consul", "-agent", address, "-name", in.namespace}
			if forgetful {
				command = append(command, "-forgetful")
			}
			main.Args = append(append(command, "--"), main.Args[1:]...) // replaces "serve"
		},
		clients: []string{"-consul", address, "-refresh", refresh},
		ask: func(service string) (map[string]string, error) {
			body, err := s.get(name, port, "/v1/health/service/"+service)
			if err != nil {
				return nil, err
			}
			var entries []struct {
				Service struct{ ID string }
				Checks  []struct{ Status string }
			}
			if err := json.Unmarshal(body, &entries); err != nil {
				return nil, err
			}
			status := map[string]string{}
			for _, e := range entries {
				status[e.Service.ID] = "passing"
				for _, check := range e.Checks {
					if check.Status != "passing" {
						status[e.Service.ID] = check.Status
					}
				}
			}
			return status, nil
		},
	}
}

func TestConsulRollingRestart(t *testing.T) {
	each(t, []variant{native, classic, bare, sleep30}, func(s *scenario, v variant) {
		s.consul().rollingRestart(s, "rolling restart of 4 replicas, clients find them in Consul and use their copy for 5 s",
			app{name: "web", replicas: 4, variant: v})
	})
}

// The app has no Consul client. The sidecar registers it under the pod's name, and no pod
// is ready before clients can find it. In the variant without a sidecar, the app registers
// and deregisters itself.
func TestRegisteredApp(t *testing.T) {
	each(t, []variant{native, classic, bare}, func(s *scenario, v variant) {
		consul, web := s.consul(), app{name: "web", replicas: 3, variant: v}
		if v.lastcall() {
			consul.announce = func(*scenario, *corev1.Container, bool) {}
			consul.registersWithin = 0
			web.lastcall = map[string]string{
				"LASTCALL_REGISTER": "true", "LASTCALL_SERVICE_NAME": s.namespace,
				"LASTCALL_CONSUL_SERVICE_ID": "$(LASTCALL_POD_NAME)", "LASTCALL_READY_WHEN_LISTED": "true",
			}
		}
		consul.rollingRestart(s, "rolling restart of 3 replicas that the sidecar registers in Consul (without it, they do that themselves), clients use their copy for 5 s", web)
	})
}

// Pods have an IPv4 and an IPv6 address, and register the second one. If the machine has no
// IPv6, they have one address, and the row in the table says so.
func TestConsulTwoFamilies(t *testing.T) {
	each(t, []variant{native}, func(s *scenario, v variant) {
		consul := s.consul()
		name := "rolling restart of 2 replicas with two addresses, which register that of IPv6 in Consul"
		if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
			name = "rolling restart of 2 replicas that register in Consul; not tried with two addresses: the machine has no IPv6"
		} else {
			announce := consul.announce
			consul.announce = func(in *scenario, main *corev1.Container, forgetful bool) {
				announce(in, main, forgetful)
				main.Args = slices.Insert(main.Args, slices.Index(main.Args, "--"), "-family", "IPv6")
			}
		}
		consul.rollingRestart(s, name, app{name: "web", replicas: 2, variant: v})
	})
}

// How it fails without Lastcall is seen in TestConsulRollingRestart.
func TestConsulStatefulSet(t *testing.T) {
	each(t, []variant{native}, func(s *scenario, v variant) {
		s.consul().statefulSetRestarts(s, "StatefulSet of 3 restarts, clients find them in Consul and use their copy for 5 s",
			app{name: "web", replicas: 3, variant: v})
	})
}

func TestConsulLivenessFails(t *testing.T) {
	each(t, []variant{native, bare}, func(s *scenario, v variant) {
		s.consul().livenessFails(s, "the app's liveness probe fails, clients find it in Consul and use their copy for 5 s",
			app{name: "web", replicas: 2, variant: v, liveness: true, flags: exitsAtOnce()}, s.sicken)
	})
}

// The app does not deregister itself. The sidecar does so if it can. If the sidecar is
// killed, the next sidecar with the same id clears the withdrawal.
func TestConsulCleaningUp(t *testing.T) {
	each(t, []variant{native}, func(s *scenario, v variant) {
		consul := s.consul()
		web := app{name: "web", replicas: 2, variant: v, shareProcesses: true}
		consul.createStatefulSet(s, web)

		consul.cutShort(s, web, func(pod string) {
			_, err := s.post(pod, appPort, "/kill?program=lastcall")
			s.must("killing the sidecar", err)
		})
		consul.hurried(s, web)
		s.scaleStatefulSet(&web, 0)
		consul.holds(s, web)
	})
}

func TestConsulIsGone(t *testing.T) {
	each(t, []variant{native}, func(s *scenario, v variant) {
		consul := s.consul()
		web := app{name: "web", replicas: 2, variant: v, grace: 15 * time.Second, flags: lingers(), lastcall: map[string]string{"LASTCALL_EVENTS": "true"}}
		s.leavesWithoutRegistry("Consul", web, consul.podSpec(s, web, false), func() {
			consul.holds(s, web)
			s.must("deleting Consul", s.client.CoreV1().Pods(s.namespace).Delete(s.ctx, "registry", metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))}))
			s.waitForPods("Consul is gone", func(pods []*corev1.Pod) bool { return byName(pods, "registry") == nil })
			// The Service refuses connections as soon as it has no endpoint.
			s.eventually("nobody is behind the Service", s.noEndpoints("registry"))
		})
	})
}

// noEndpoints returns a function that reports whether a Service has no endpoints.
func (s *scenario) noEndpoints(service string) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		slices, err := s.client.DiscoveryV1().EndpointSlices(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})
		if err != nil {
			return false, err
		}
		for _, slice := range slices.Items {
			if len(slice.Endpoints) > 0 {
				return false, nil
			}
		}
		return true, nil
	}
}
