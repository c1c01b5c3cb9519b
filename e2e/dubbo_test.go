package e2e

import (
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// dubbo returns the command that runs a class of examples/dubbo-zookeeper in the
// registries' image. It sets user.home because Dubbo writes files there.
func dubbo(class string, args ...string) []string {
	command := append([]string{"java"}, strings.Fields(jvm)...)
	return append(append(command, "-Duser.home=/tmp", "-Dzookeeper.admin.enableServer=false", "-cp", "/dubbo-zookeeper.jar", class), args...)
}

// Providers restart while a consumer, which finds them in ZooKeeper, calls them. Dubbo's
// own shutdown deregisters them and waits for calls. So without Lastcall the failures
// are only reported in the table, and there may be none.
func TestDubbo(t *testing.T) {
	t.Parallel()
	for _, v := range []variant{native, bare} {
		t.Run(string(v), func(t *testing.T) {
			s := start(t)
			zookeeper := s.runServer("zookeeper", 2181, "", dubbo("org.apache.zookeeper.server.ZooKeeperServerMain", "2181", "/tmp/zookeeper")...)
			web := app{name: "greeter", replicas: 2, variant: v, minReady: 5, lastcall: map[string]string{
				"LASTCALL_REGISTRIES":        "dubbo",
				"LASTCALL_READY_WHEN_LISTED": "true",
			}}
			spec := web.podSpec()
			main := &spec.Containers[0]
			main.Image = registriesImage()
			main.Command, main.Args = dubbo("apps.Provider", "$(POD_NAME)", zookeeper, strconv.Itoa(appPort), "22222"), nil
			main.ReadinessProbe.ProbeHandler = takesConnections(appPort)
			main.Resources.Requests = requests("10m", "128Mi")
			spec.Volumes = append(spec.Volumes, temporary())
			main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: "tmp", MountPath: "/tmp"})
			s.createDeployment(web, spec)
			caller := s.runServer("caller", 8080, "", dubbo("apps.Consumer", zookeeper, "8080")...)
			s.ready(web)

			clients := s.load(caller)
			s.restart(web)
			clients.more(40)
			counts := clients.stop()
			results.add("rolling restart of 2 Dubbo providers, which a consumer finds in ZooKeeper", v, counts, s.longest(web))
			if v == bare {
				return
			}
			s.noneFailed(counts)
			s.wentWell(web)
		})
	}
}
