package bench

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
	"lastcall/internal/test/cputime"
	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
)

// starts is how often the program is started.
const starts = 41

// measureStart measures the time from the start of the process until /readyz
// answers 200.
func measureStart(b *testing.B, t *table) {
	env := everything(b).env
	var values []float64
	for range starts {
		address := freeport.Address(b)
		began := time.Now()
		s := sidecar.Launch(b, &program, append(env, "LASTCALL_LISTEN="+address)...)
		s.URL = "http://" + address
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		for {
			if a := s.Call(ctx, http.MethodGet, "/readyz"); a.Code == http.StatusOK {
				values = append(values, milliseconds(a.At.Sub(began)))
				break
			}
			if ctx.Err() != nil {
				b.Fatalf("not ready: %s", s.Log())
			}
		}
		cancel()
		s.Stop()
	}
	t.add("start of the process → first 200 of /readyz, with 2 registries and 6 counters", values, "ms", 1, "50 ms", fmt.Sprintf("%d starts", starts))
}

// measureSize measures the content of the image: the program and the trusted roots.
func measureSize(b *testing.B, t *table) {
	var size int64
	for _, file := range []string{program.Path, "/etc/ssl/certs/ca-certificates.crt"} {
		info, err := os.Stat(file)
		if err != nil {
			b.Fatal(err)
		}
		size += info.Size()
	}
	t.add("image, unpacked", []float64{float64(size) / 1e6}, "MB", 1, "16 MB", "the program and the trusted roots")
}

// pod is a pod with every feature: an app behind three proxies, with a file and a
// metrics page, registered in both registries.
type pod struct {
	env  []string
	file work // the work in flight
}

func everything(b testing.TB) pod {
	b.Helper()
	file, prometheus := fileWork(b), prometheusWork(b)
	backend := servers.StartBackend(b)
	nginx, haproxy := servers.StartNginx(b, backend), servers.StartHAProxy(b, backend)
	envoy := servers.StartEnvoy(b, backend, servers.EnvoyOptions{})

	consul := servers.StartConsul(b, servers.ConsulOptions{})
	err := consul.Client(b).Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "web-1", Name: "web", Address: "127.0.0.1", Port: nginx.Port})
	if err != nil {
		b.Fatal(err)
	}
	servers.NeedEureka(b)
	eureka, err := servers.StartEureka(servers.EurekaOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(eureka.Stop)
	register(b, eureka.URLs[0], nginx.Port)

	return pod{file: file, env: append(append(file.env, prometheus.env[1:]...),
		"LASTCALL_COUNTERS=file,nginx,haproxy,envoy,prometheus,tcp",
		"LASTCALL_NGINX_STATUS="+nginx.Status,
		"LASTCALL_HAPROXY_STATS="+haproxy.Stats,
		"LASTCALL_ENVOY_ADMIN="+envoy.Admin,
		"LASTCALL_APP_PORT="+strconv.Itoa(nginx.Port),
		"LASTCALL_POD_IP=127.0.0.1",
		"LASTCALL_REGISTRIES=consul,eureka",
		"CONSUL_HTTP_ADDR="+consul.Address,
		"LASTCALL_EUREKA_URLS="+eureka.URLs[0],
		"LASTCALL_EUREKA_APP=WEB",
		"LASTCALL_EUREKA_CLIENT_REFRESH=2s",
	)}
}

// register registers the instance as an app's client does.
func register(b testing.TB, url string, port int) {
	b.Helper()
	instance := fmt.Sprintf(`{"instance": {"instanceId": "pod:web:%d", "hostName": "pod", "app": "WEB", "ipAddr": "127.0.0.1", "status": "UP",
		"port": {"$": %d, "@enabled": "true"}, "securePort": {"$": 443, "@enabled": "false"}, "vipAddress": "web",
		"dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
		"leaseInfo": {"renewalIntervalInSecs": 30, "durationInSecs": 3600}}}`, port, port)
	resp, err := http.Post(url+"/apps/WEB", "application/json", strings.NewReader(instance))
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		b.Fatalf("registering at Eureka: %s", resp.Status)
	}
}

// memories is the number of measured processes.
const memories = 5

// measureMemory measures the resident memory of processes that have been probed and
// scraped for a while, and their peak during a drain.
func measureMemory(b *testing.B, t *table) {
	file := fileWork(b)
	for _, c := range []struct {
		name string
		pod  pod
	}{
		{"with `file` alone", pod{append(file.env, "LASTCALL_COUNTERS=file"), file}},
		{"with 2 registries and 6 counters", everything(b)},
	} {
		var idle, draining []float64
		for range memories {
			s := sidecar.Start(b, &program, c.pod.env...)
			s.Await(b, "the instance being found", func(status drain.Status) bool {
				return strings.Count(s.Log(), "instance found") == len(status.Registries)
			})
			for range 20 { // like a kubelet and Prometheus in a few minutes
				probe(b, s)
				scrape(b, s)
			}
			idle = append(idle, memory(b, s, "VmRSS"))

			end := c.pod.file.begin()
			hook := s.PreStop(context.Background())
			s.Await(b, "the drain waiting for work", func(status drain.Status) bool { return status.Phase == drain.Draining })
			for range 20 {
				probe503(b, s)
				scrape(b, s)
			}
			end()
			if a := sidecar.Wait(b, hook, time.Minute); a.Code != http.StatusOK {
				b.Fatalf("the hook was answered %d %s %v", a.Code, a.Body, a.Err)
			}
			draining = append(draining, memory(b, s, "VmHWM"))
			s.Want(b, http.StatusOK, http.MethodDelete, "/drain")
			s.Stop()
		}
		t.add("resident memory, idle, "+c.name, idle, "MB", 1, "15 MB", fmt.Sprintf("%d processes", memories))
		t.add("the most during a drain, "+c.name, draining, "MB", 1, "15 MB", fmt.Sprintf("%d processes", memories))
	}
}

func probe(b testing.TB, s *sidecar.Sidecar) {
	s.Want(b, http.StatusOK, http.MethodGet, "/readyz")
	s.Want(b, http.StatusOK, http.MethodGet, "/livez")
}

func probe503(b testing.TB, s *sidecar.Sidecar) {
	s.Want(b, http.StatusServiceUnavailable, http.MethodGet, "/readyz")
	s.Want(b, http.StatusOK, http.MethodGet, "/livez")
}

func scrape(b testing.TB, s *sidecar.Sidecar) {
	s.Want(b, http.StatusOK, http.MethodGet, "/metrics")
}

// memory returns a value of the process's status file, in MB.
func memory(b testing.TB, s *sidecar.Sidecar, name string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kilobytes float64
		if _, err := fmt.Sscanf(line, name+": %f kB", &kilobytes); err == nil {
			return kilobytes * 1024 / 1e6
		}
	}
	b.Fatalf("no %s in %s", name, text)
	return 0
}

// idleFor is how long an idle sidecar is observed.
const idleFor = 2 * time.Minute

// measureIdle measures the CPU time of a sidecar that is probed every 10 s and
// scraped every 30 s.
func measureIdle(b *testing.B, t *table) {
	s := sidecar.Start(b, &program, everything(b).env...)
	s.Await(b, "the instances being found", func(drain.Status) bool { return strings.Count(s.Log(), "instance found") == 2 })
	probe(b, s)
	scrape(b, s)
	before, began := cputime.Of(b, s.Pid), time.Now()
	probes, scrapes := time.NewTicker(10*time.Second), time.NewTicker(30*time.Second)
	defer probes.Stop()
	defer scrapes.Stop()
	over := time.NewTimer(idleFor)
	defer over.Stop()
	for running := true; running; {
		select {
		case <-probes.C:
			probe(b, s)
		case <-scrapes.C:
			scrape(b, s)
		case <-over.C:
			running = false
		}
	}
	share := 100 * (cputime.Of(b, s.Pid) - before).Seconds() / time.Since(began).Seconds()
	t.add("CPU of an idle sidecar, probed every 10 s (/readyz and /livez) and scraped every 30 s", []float64{share}, "% of a core", 3, "0.1 %", idleFor.String())
}
