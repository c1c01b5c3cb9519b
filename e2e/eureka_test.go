package e2e

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// jvm are Java's flags for little memory and a short start.
const jvm = "-Xmx96m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

// eureka runs Spring Cloud's Eureka server. The server refreshes its response cache every
// 5 s, and clients use their copy for 5 s; both are 30 s by default. The app is that of
// examples/eureka-spring, also with a heartbeat every 5 s.
func (s *scenario) eureka() registry {
	s.Helper()
	const name, port, refresh = "registry", 8761, "5s"
	address := "http://" + s.runServer(name, port, "/eureka/apps/",
		append(append([]string{"java"}, strings.Fields(jvm)...), "-XX:SharedArchiveFile=/eureka-server/eureka-server.jsa", "-jar", "/eureka-server/eureka-server.jar", "--eureka.server.response-cache-update-interval-ms=5000")...) + "/eureka"
	return registry{
		server: s, kind: "eureka", up: "UP", out: "OUT_OF_SERVICE", ending: "DOWN", registersWithin: 10,
		settings: func(of *scenario) map[string]string {
			return map[string]string{"LASTCALL_EUREKA_URLS": address, "LASTCALL_EUREKA_APP": of.namespace, "LASTCALL_EUREKA_CLIENT_REFRESH": refresh}
		},
		announce: func(of *scenario, main *corev1.Container, forgetful bool) {
			main.Image = registriesImage()
			// The app is sick while the file exists: see sickenJava.
			main.Command = []string{"sh", "-c", "rm -f " + sickFile + "; exec java " + jvm + " -XX:SharedArchiveFile=/eureka-app/eureka-app.jsa -jar /eureka-app/eureka-app.jar"}
			main.Args = nil
			main.Env = append(main.Env,
				corev1.EnvVar{Name: "EUREKA_URLS", Value: address + "/"},
				corev1.EnvVar{Name: "SPRING_APPLICATION_NAME", Value: of.namespace},
				corev1.EnvVar{Name: "EUREKA_INSTANCE_INSTANCEID", Value: "$(POD_NAME)"},
				corev1.EnvVar{Name: "EUREKA_INSTANCE_LEASERENEWALINTERVALINSECONDS", Value: "5"},
				corev1.EnvVar{Name: "LASTCALL_DRAINING_FILE", Value: drainingFile},
			)
			if forgetful {
				main.Env = append(main.Env, corev1.EnvVar{Name: "EUREKA_CLIENT_SHOULDUNREGISTERONSHUTDOWN", Value: "false"})
			}
			main.Resources.Requests = requests("10m", "128Mi")
			if main.LivenessProbe != nil {
				well := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "! test -e " + sickFile}}}
				main.StartupProbe, main.LivenessProbe.ProbeHandler = nil, well
			}
		},
		clients: []string{"-eureka", address, "-refresh", refresh, "-milliseconds", "-rate", "20"},
		ask: func(app string) (map[string]string, error) {
			body, err := s.get(name, port, "/eureka/apps/")
			if err != nil {
				return nil, err
			}
			var all struct {
				Applications struct {
					Application []struct {
						Name     string
						Instance []struct{ InstanceID, Status string }
					}
				}
			}
			if err := json.Unmarshal(body, &all); err != nil {
				return nil, err
			}
			status := map[string]string{}
			for _, a := range all.Applications.Application {
				for _, i := range a.Instance {
					if strings.EqualFold(a.Name, app) {
						status[i.InstanceID] = i.Status
					}
				}
			}
			return status, nil
		},
	}
}

// Each variant runs after the one before, because Java needs much of a small machine.
// What a classic sidecar and sleep 30 do is seen in TestConsulRollingRestart.
func TestEurekaRollingRestart(t *testing.T) {
	t.Parallel()
	eureka := startFor(t, groupPatience).eureka()
	for _, v := range []variant{native, bare} {
		t.Run(string(v), func(t *testing.T) {
			eureka.rollingRestart(startFor(t, patience), "rolling restart of 2 replicas (Spring Boot), Eureka renews its answers every 5 s, and clients use their copy for 5 s",
				app{name: "orders", replicas: 2, variant: v})
		})
	}
}

// How the same fails without Lastcall is seen with Consul: TestConsulStatefulSet.
func TestEurekaStatefulSet(t *testing.T) {
	s := start(t)
	eureka := s.eureka()
	orders := app{name: "orders", replicas: 2, variant: native, shareProcesses: true}
	eureka.statefulSetRestarts(s, "StatefulSet of 2 (Spring Boot) restarts, Eureka as above", orders)
	eureka.cutShort(s, orders, s.killSidecar)
	eureka.hurried(s, orders)
	// In this scenario, the app does not deregister itself.
	s.scaleStatefulSet(&orders, 0)
	eureka.holds(s, orders)
}

// How the same fails without Lastcall is seen with Consul: TestConsulLivenessFails.
func TestEurekaLivenessFails(t *testing.T) {
	s := start(t)
	s.eureka().livenessFails(s, "the app's liveness probe fails (Spring Boot), Eureka as above",
		app{name: "orders", replicas: 2, variant: native, liveness: true}, s.sickenJava)
}

// sickFile is a file that makes the liveness probe of the Java app fail.
const sickFile = "/tmp/sick"

// sickenJava makes the liveness probe of the Java app fail until the app's next start.
func (s *scenario) sickenJava(pod string) {
	s.Helper()
	s.kubectl(nil, "exec", "--namespace", s.namespace, pod, "--container", "app", "--", "touch", sickFile)
}

// killSidecar kills the sidecar from the Java app's container.
func (s *scenario) killSidecar(pod string) {
	s.Helper()
	const kill = `for p in /proc/[0-9]*; do if [ "$(cat $p/comm)" = lastcall ]; then kill -KILL ${p#/proc/}; exit; fi; done; exit 1`
	out, err := exec.CommandContext(s.ctx, "kubectl", "exec", "--namespace", s.namespace, pod, "--container", "app", "--", "sh", "-c", kill).CombinedOutput()
	if err != nil {
		s.Fatalf("killing the sidecar: %v\n%s", err, out)
	}
}

// Nothing answers at Eureka's address at any time.
func TestEurekaIsGone(t *testing.T) {
	each(t, []variant{native}, func(s *scenario, v variant) {
		web := app{name: "web", replicas: 2, variant: v, grace: 15 * time.Second, flags: lingers(), lastcall: map[string]string{
			"LASTCALL_EVENTS": "true", "LASTCALL_REGISTRIES": "eureka", "LASTCALL_EUREKA_APP": "web",
			"LASTCALL_EUREKA_URLS": "http://" + s.service("registry") + "/eureka",
		}}
		s.leavesWithoutRegistry("Eureka", web, web.podSpec(), func() {})
	})
}
