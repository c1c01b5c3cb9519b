package main

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
)

func TestDefaults(t *testing.T) {
	environment(t)
	p, err := configure()
	if err != nil {
		t.Fatal(err)
	}
	d := p.drain
	if d.GracePeriod != 30*time.Second || d.Reserve != 5*time.Second || d.EndpointsWait != 3*time.Second ||
		d.Quiet != time.Second || d.Poll != 100*time.Millisecond || d.Threshold != 0 || d.StayReady || d.ReadyWhenListed || d.ListedWithin != 3*time.Minute {
		t.Errorf("the drain is configured as %+v", d)
	}
	if d.App != nil || d.Notice != nil || len(d.Kubelet) > 0 || len(d.Registries) > 0 || len(d.Counters) > 0 {
		t.Errorf("nothing was chosen, and the drain has %+v", d)
	}
	if p.Listen != ":8099" || p.level != slog.LevelInfo || p.LogFormat != "json" {
		t.Errorf("listens at %q, logs %v as %q", p.Listen, p.level, p.LogFormat)
	}
	if len(d.Observers) != 1 {
		t.Errorf("%d observers, want the termination message only", len(d.Observers))
	}
}

func TestSettings(t *testing.T) {
	environment(t,
		"LASTCALL_GRACE_PERIOD=90s", "LASTCALL_RESERVE=10s", "LASTCALL_ENDPOINTS_WAIT=0s", "LASTCALL_QUIET=2s",
		"LASTCALL_READY_WHEN_LISTED=true", "LASTCALL_READY_WHEN_LISTED_WITHIN=90s", "LASTCALL_POLL=20ms", "LASTCALL_THRESHOLD=3", "LASTCALL_READYZ_ON_DRAIN=pass", "LASTCALL_LOG_LEVEL=debug",
		"LASTCALL_HOST_IP=10.0.0.9", "LASTCALL_APP_PORT=8080, 8081", "LASTCALL_DRAINING_FILE=/lastcall/draining",
		"LASTCALL_REGISTRIES= eureka ,consul", "LASTCALL_POD_IP=10.0.0.1",
		"LASTCALL_EUREKA_URLS=http://eureka-0:8761/eureka", "LASTCALL_EUREKA_CLIENT_REFRESH=65s",
	)
	p, err := configure()
	if err != nil {
		t.Fatal(err)
	}
	d := p.drain
	if d.GracePeriod != 90*time.Second || d.Reserve != 10*time.Second || d.EndpointsWait != 0 || d.Quiet != 2*time.Second ||
		d.Poll != 20*time.Millisecond || d.Threshold != 3 || !d.StayReady || !d.ReadyWhenListed || d.ListedWithin != 90*time.Second || p.level != slog.LevelDebug {
		t.Errorf("the drain is configured as %+v", d)
	}
	if !slices.Equal(d.Kubelet, []netip.Addr{netip.MustParseAddr("10.0.0.9")}) {
		t.Errorf("the kubelet is at %v", d.Kubelet)
	}
	if d.App == nil || !slices.Equal(d.App.Ports(), []int{8080, 8081}) || d.Notice == nil {
		t.Errorf("the app is %v, its notice %v", d.App, d.Notice)
	}
	if len(d.Registries) != 2 || d.Registries[0].Name != "eureka" || d.Registries[1].Name != "consul" {
		t.Fatalf("the registries are %+v", d.Registries)
	}
	if r := d.Registries[0]; r.ServerCache != 30*time.Second || r.ClientRefresh != 65*time.Second {
		t.Errorf("Eureka's clients forget the pod after %v and %v", r.ServerCache, r.ClientRefresh)
	}
	if r := d.Registries[1]; r.ServerCache != 0 || r.ClientRefresh != time.Second {
		t.Errorf("Consul's clients forget the pod after %v and %v", r.ServerCache, r.ClientRefresh)
	}
}

// TestErrors: one wrong value is one error, which names its variable.
func TestErrors(t *testing.T) {
	const eureka = "LASTCALL_REGISTRIES=eureka LASTCALL_EUREKA_URLS=http://eureka-0/eureka LASTCALL_APP_PORT=1 LASTCALL_POD_IP=10.0.0.1 "
	for set, want := range map[string]string{
		"LASTCALL_LISTEN=8099":                                `LASTCALL_LISTEN="8099": must be HOST:PORT or :PORT`,
		"LASTCALL_LISTEN=:70000":                              `LASTCALL_LISTEN=":70000": its port must be from 0 to 65535`,
		"LASTCALL_APP_PORT=8099":                              "LASTCALL_APP_PORT=8099 is the port that lastcall itself listens on",
		"LASTCALL_APP_READY_URL=http://127.0.0.1:8099/readyz": "LASTCALL_APP_READY_URL leads to port 8099, which is lastcall's own",
		"LASTCALL_APP_PORT=80,http":                           "LASTCALL_APP_PORT",
		"LASTCALL_APP_PORT=0":                                 "LASTCALL_APP_PORT=0: must be from 1 to 65535",
		"LASTCALL_APP_PORT=80,80":                             "LASTCALL_APP_PORT names 80 twice",
		"LASTCALL_GRACE_PERIOD=999ms":                         "LASTCALL_GRACE_PERIOD=999ms: must be at least 1s",
		"LASTCALL_GRACE_PERIOD=60":                            `LASTCALL_GRACE_PERIOD="60": must be a duration`,
		"LASTCALL_RESERVE=30s":                                "LASTCALL_RESERVE=30s leaves nothing of LASTCALL_GRACE_PERIOD=30s",
		"LASTCALL_RESERVE=-1ns":                               "LASTCALL_RESERVE=-1ns: must be at least 0s",
		"LASTCALL_ENDPOINTS_WAIT=-1s":                         "LASTCALL_ENDPOINTS_WAIT=-1s: must be at least 0s",
		"LASTCALL_QUIET=-1s":                                  "LASTCALL_QUIET=-1s: must be at least 0s",
		"LASTCALL_POLL=9ms":                                   "LASTCALL_POLL=9ms: must be at least 10ms",
		"LASTCALL_THRESHOLD=-1":                               "LASTCALL_THRESHOLD=-1: must be 0 or more",
		"LASTCALL_READY_WHEN_LISTED=maybe":                    "LASTCALL_READY_WHEN_LISTED",
		"LASTCALL_REGISTER=maybe":                             "LASTCALL_REGISTER",
		"LASTCALL_READY_WHEN_LISTED_WITHIN=0s":                "LASTCALL_READY_WHEN_LISTED_WITHIN=0s: must be at least 1s",
		"LASTCALL_READYZ_ON_DRAIN=no":                         `LASTCALL_READYZ_ON_DRAIN="no": must be fail or pass`,
		"LASTCALL_LOG_LEVEL=trace":                            `LASTCALL_LOG_LEVEL="trace": must be debug, info, warn or error`,
		"LASTCALL_LOG_FORMAT=logfmt":                          `LASTCALL_LOG_FORMAT="logfmt": must be json or text`,
		"LASTCALL_POD_IP=web":                                 `LASTCALL_POD_IP="web": must be an IP address`,
		"LASTCALL_HOST_IP=node":                               `LASTCALL_HOST_IP="node": must be an IP address`,
		"LASTCALL_GRACEPERIOD=60s":                            "LASTCALL_GRACEPERIOD is not a variable of lastcall: is LASTCALL_GRACE_PERIOD meant?",
		"LASTCALL_EVENTS=maybe":                               `LASTCALL_EVENTS="maybe": must be true or false`,
		"LASTCALL_REGISTRIES=zk":                              `LASTCALL_REGISTRIES names "zk": must be any of apisix, consul, dubbo, elasticsearch, etcd, eureka, nacos, patroni, spring, steps, tikv, vault`,
		"LASTCALL_COUNTERS=guess":                             `LASTCALL_COUNTERS names "guess": must be any of envoy, file`,
		"LASTCALL_COUNTERS=file,file":                         "LASTCALL_COUNTERS names file twice",
		"LASTCALL_COUNTERS=tcp":                               "LASTCALL_APP_PORT",
		eureka + "LASTCALL_EUREKA_STATUS=UP":                  `LASTCALL_EUREKA_STATUS="UP": must be OUT_OF_SERVICE or DOWN`,
		"LASTCALL_DRAINING_FILE=draining":                     `LASTCALL_DRAINING_FILE="draining": must be an absolute path`,
		"LASTCALL_COUNTERS=file LASTCALL_DRAINING_FILE=/lastcall/inflight":   `LASTCALL_DRAINING_FILE="/lastcall/inflight": must be beside LASTCALL_FILE_PATH`,
		"LASTCALL_COUNTERS=file LASTCALL_DRAINING_FILE=/lastcall/inflight/x": "must be beside LASTCALL_FILE_PATH",
	} {
		t.Run(set, func(t *testing.T) {
			environment(t, strings.Fields(set)...)
			_, err := configure()
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("got %v, want %q", err, want)
			}
			if lines := strings.Split(err.Error(), "\n"); len(lines) != 1 {
				t.Errorf("%d errors for one mistake: %v", len(lines), err)
			}
		})
	}
	t.Run("a token with a line break", func(t *testing.T) {
		environment(t, "LASTCALL_TOKEN=hunter2\n")
		if _, err := configure(); err == nil || !strings.Contains(err.Error(), "LASTCALL_TOKEN") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v", err)
		}
	})
}

// TestDrainingFileBesideTheCount: only what the file counter reads is taken.
func TestDrainingFileBesideTheCount(t *testing.T) {
	for _, set := range []string{
		"LASTCALL_COUNTERS=file LASTCALL_DRAINING_FILE=/lastcall/draining",
		"LASTCALL_DRAINING_FILE=/lastcall/inflight", // which nothing counts
	} {
		environment(t, strings.Fields(set)...)
		if _, err := configure(); err != nil {
			t.Errorf("%s: %v", set, err)
		}
	}
}

// TestEveryErrorAtOnce: no mistake hides another.
func TestEveryErrorAtOnce(t *testing.T) {
	environment(t, "LASTCALL_LISTEN=x", "LASTCALL_POLL=1ms", "LASTCALL_LOG_LEVEL=loud", "LASTCALL_APP_READY_URL=x",
		"LASTCALL_REGISTRIES=eureka", "LASTCALL_POD_IP=10.0.0.1", "LASTCALL_COUNTERS=guess,prometheus", "LASTCALL_DRAINING_FILE=x")
	_, err := configure()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"LASTCALL_LISTEN", "LASTCALL_POLL", "LASTCALL_LOG_LEVEL", "LASTCALL_APP_READY_URL", "LASTCALL_EUREKA_URLS",
		"LASTCALL_EUREKA_INSTANCE_ID", "guess", "LASTCALL_PROMETHEUS_URL", "LASTCALL_DRAINING_FILE"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is missing in\n%v", want, err)
		}
	}
}

func TestCountersThatAreChosen(t *testing.T) {
	const metric = "LASTCALL_PROMETHEUS_URL=http://127.0.0.1:1/metrics LASTCALL_PROMETHEUS_METRIC=in_flight "
	for _, test := range []struct {
		name, set string
		want      []string
		blind     []string
	}{
		{"nothing is known", "", nil, nil},
		{"the port alone", "LASTCALL_APP_PORT=8080", []string{"tcp"}, nil},
		{"a file and the port", "LASTCALL_COUNTERS=file LASTCALL_APP_PORT=8080", []string{"file", arrivalsName}, nil},
		{"a file without the port", "LASTCALL_COUNTERS=file", []string{"file"}, []string{"file"}},
		{"a file and tcp", "LASTCALL_COUNTERS=file,tcp LASTCALL_APP_PORT=8080", []string{"file", "tcp"}, nil},
		{"a gauge and the port", "LASTCALL_COUNTERS=prometheus LASTCALL_APP_PORT=8080 " + metric, []string{"prometheus", arrivalsName}, nil},
		{"a gauge without the port", "LASTCALL_COUNTERS=prometheus " + metric, []string{"prometheus"}, []string{"prometheus"}},
		{"a gauge and a total", "LASTCALL_COUNTERS=prometheus LASTCALL_APP_PORT=8080 LASTCALL_PROMETHEUS_TOTAL=requests_total " + metric, []string{"prometheus"}, nil},
		{"a proxy", "LASTCALL_COUNTERS=nginx", []string{"nginx"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			environment(t, strings.Fields(test.set)...)
			p, err := configure()
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, c := range p.drain.Counters {
				names = append(names, c.Name)
			}
			if !slices.Equal(names, test.want) || !slices.Equal(p.blind, test.blind) {
				t.Errorf("the counters are %v, blind are %v; want %v and %v", names, p.blind, test.want, test.blind)
			}
		})
	}
}

// The kubelet is known in any notation of its address.
func TestKubeletsAddress(t *testing.T) {
	for value, want := range map[string]string{
		"10.0.0.9": "10.0.0.9", "::ffff:10.0.0.9": "10.0.0.9", "2001:db8:0::9": "2001:db8::9",
	} {
		t.Run(value, func(t *testing.T) {
			environment(t, "LASTCALL_HOST_IP="+value)
			p, err := configure()
			if err != nil || !slices.Equal(p.drain.Kubelet, []netip.Addr{netip.MustParseAddr(want)}) {
				t.Errorf("the kubelet is at %v, %v; want %s", p.drain.Kubelet, err, want)
			}
		})
	}
}

// TestPod: plug-ins get the pod as the environment describes it.
func TestPod(t *testing.T) {
	environment(t, "LASTCALL_POD_NAME=web-1", "LASTCALL_POD_IP=10.0.0.1", "LASTCALL_HOST_IP=10.0.0.9", "LASTCALL_APP_PORT=8080,8081")
	p, err := configure()
	if err != nil {
		t.Fatal(err)
	}
	pod, err := p.pod()
	want := drain.Pod{Name: "web-1", IP: "10.0.0.1", HostIP: "10.0.0.9", AppPort: 8080, AppPorts: []int{8080, 8081}}
	if err != nil || pod.Name != want.Name || pod.IP != want.IP || pod.HostIP != want.HostIP || pod.AppPort != want.AppPort || !slices.Equal(pod.AppPorts, want.AppPorts) {
		t.Errorf("the pod is %+v, %v; want %+v", pod, err, want)
	}
}
