package e2e

import (
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// dubbo runs a class of examples/dubbo-zookeeper, from the registries' image.
// Dubbo keeps files in the user's home.
func dubbo(class string, args ...string) []string {
	command := append([]string{"java"}, strings.Fields(jvm)...)
	return append(append(command, "-Duser.home=/tmp", "-Dzookeeper.admin.enableServer=false", "-cp", "/dubbo-zookeeper.jar", class), args...)
}

// Providers leave while a consumer calls them, by way of ZooKeeper. Dubbo's own
// shutdown deregisters them and waits for calls, so what fails without Lastcall
// is in the table, and may be nothing.
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
