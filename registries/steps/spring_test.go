package steps

import (
	"fmt"
	"strings"
	"testing"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// A Spring Cloud app is tested with each of its registries: its load balancer
// returns the app, not while it is withdrawn, and then again.
func TestSpring(t *testing.T) {
	only := func(registry string, options ...string) []string {
		for name, off := range map[string]string{
			"eureka": "--eureka.client.enabled=false", "consul": "--spring.cloud.consul.enabled=false", "zookeeper": "--spring.cloud.zookeeper.enabled=false",
		} {
			if name != registry {
				options = append(options, off)
			}
		}
		return options
	}
	for _, test := range []struct {
		registry, status string
		options          func(t *testing.T) []string
	}{
		{"zookeeper", "", func(t *testing.T) []string {
			return []string{
				fmt.Sprintf("--spring.cloud.zookeeper.connect-string=127.0.0.1:%d", servers.StartZooKeeper(t).Port),
				"--spring.cloud.zookeeper.discovery.instance-host=127.0.0.1",
			}
		}},
		{"consul", "OUT_OF_SERVICE", func(t *testing.T) []string {
			_, port, _ := strings.Cut(strings.TrimPrefix(servers.StartConsul(t, servers.ConsulOptions{}).Address, "http://"), ":")
			return []string{
				"--spring.cloud.consul.port=" + port, "--spring.cloud.consul.discovery.hostname=127.0.0.1",
				"--spring.cloud.consul.discovery.register-health-check=false",
				"--spring.cloud.consul.discovery.query-passing=true", // otherwise clients get all instances
			}
		}},
		{"eureka", "", func(t *testing.T) []string {
			servers.NeedEureka(t)
			e, err := servers.StartEureka(servers.EurekaOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(e.Stop)
			return []string{
				"--eureka.client.service-url.defaultZone=" + e.URLs[0] + "/", "--eureka.instance.ip-address=127.0.0.1",
				"--eureka.instance.prefer-ip-address=true", "--eureka.client.registry-fetch-interval-seconds=1",
				"--eureka.instance.lease-renewal-interval-in-seconds=1",
				"--eureka.client.initial-instance-info-replication-interval-seconds=1", "--eureka.client.instance-info-replication-interval-seconds=1",
			}
		}},
	} {
		t.Run(test.registry, func(t *testing.T) {
			app := servers.StartSpringApp(t, only(test.registry, test.options(t)...)...)
			listed := func() bool {
				instance, err := ask(app.URL + "/choose/orders")
				if err != nil && !strings.HasPrefix(err.Error(), "404") {
					t.Fatal(err)
				}
				return instance == app.Address
			}
			env := map[string]string{"LASTCALL_SPRING_URL": app.URL + "/actuator"}
			if test.status != "" {
				env["LASTCALL_SPRING_STATUS"] = test.status
			}
			r := preset(t, "spring", drain.Pod{}, env)
			if _, err := r.Find(within(t)); err != nil {
				t.Fatalf("Find: %v", err)
			}
			wait.Until(t, "Listed", func() bool { return isListed(t, r) })
			if isWithdrawn(t, r) || !listed() {
				t.Fatal("withdrawn before Withdraw")
			}
			do(t, "Withdraw", r.Withdraw)
			wait.Until(t, "Withdrawn", func() bool { return isWithdrawn(t, r) })
			wait.Until(t, "clients' forgetting", func() bool { return !listed() })
			if isListed(t, r) {
				t.Error("listed while it is withdrawn")
			}
			do(t, "Withdraw again", r.Withdraw)
			if !isWithdrawn(t, preset(t, "spring", drain.Pod{}, env)) || listed() {
				t.Error("a second withdrawal, or a new registry, brings it back")
			}
			do(t, "Restore", r.Restore)
			wait.Until(t, "being listed", listed)
			if isWithdrawn(t, r) || !isListed(t, r) {
				t.Error("withdrawn after Restore")
			}
			app.Kill()
			if isListed(t, r) {
				t.Error("an app that has ended is listed")
			}
			do(t, "Withdraw after the end", r.Withdraw)
			if !isWithdrawn(t, r) {
				t.Error("an app that has ended is not withdrawn")
			}
		})
	}
}
