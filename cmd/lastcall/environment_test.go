package main

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// environment sets the variables, each NAME=VALUE, and unsets all others that
// the program reads, until the test ends.
func environment(t *testing.T, set ...string) {
	t.Helper()
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "LASTCALL_") || strings.HasPrefix(name, "CONSUL_") || strings.HasPrefix(name, "KUBERNETES_") {
			t.Setenv(name, "") // so that it is restored
			os.Unsetenv(name)
		}
	}
	for _, entry := range set {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
}

// tagged returns the variables of all specs that carry the tag with the value.
func tagged(specs []any, tag, value string) (names []string) {
	for _, spec := range specs {
		fields := reflect.TypeOf(spec).Elem()
		for i := range fields.NumField() {
			if field := fields.Field(i); field.Tag.Get(tag) == value {
				names = append(names, field.Tag.Get("envconfig"))
			}
		}
	}
	return names
}

// everything is an environment that chooses every registry and every counter.
func everything() []string {
	known := plugins(everyPreset)
	return []string{
		"LASTCALL_POD_IP=10.0.0.1", "LASTCALL_APP_PORT=8080",
		"LASTCALL_REGISTRIES=" + strings.Join(sorted(known.registries), ","),
		"LASTCALL_COUNTERS=" + strings.Join(sorted(known.counters), ","),
		"LASTCALL_EUREKA_URLS=http://eureka-0:8761/eureka",
		"LASTCALL_NACOS_URLS=http://nacos-0:8848/nacos", "LASTCALL_NACOS_SERVICE=orders",
		"LASTCALL_POD_NAME=pod-0", "LASTCALL_STEPS_FILE=testdata/steps.yaml",
		"LASTCALL_TIKV_PD_URLS=http://pd-0:2379,http://pd-1:2379", "LASTCALL_ETCD_URL=http://127.0.0.1:2379",
		"LASTCALL_VAULT_TOKEN_FILE=testdata/token", "LASTCALL_APISIX_KEY_FILE=testdata/token",
		"LASTCALL_APISIX_URL=http://apisix:9180", "LASTCALL_APISIX_UPSTREAM=web",
		"LASTCALL_PROMETHEUS_URL=http://127.0.0.1:8080/metrics", "LASTCALL_PROMETHEUS_METRIC=in_flight",
	}
}

func TestEverything(t *testing.T) {
	environment(t, everything()...)
	p, err := configure()
	if err != nil {
		t.Fatal(err)
	}
	known := plugins(everyPreset)
	if len(p.drain.Registries) != len(known.registries) || len(p.drain.Counters) != len(known.counters) {
		t.Errorf("%d registries and %d counters, want %d and %d", len(p.drain.Registries), len(p.drain.Counters), len(known.registries), len(known.counters))
	}
}
