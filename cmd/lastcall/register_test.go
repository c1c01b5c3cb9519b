package main

import (
	"maps"
	"strings"
	"testing"

	"lastcall/drain"
)

const registering = "LASTCALL_REGISTER=true LASTCALL_APP_PORT=8080 LASTCALL_POD_IP=10.0.0.1 LASTCALL_POD_NAME=orders-0 " +
	"LASTCALL_REGISTRIES=eureka,consul,nacos LASTCALL_EUREKA_URLS=http://eureka-0/eureka LASTCALL_NACOS_URLS=http://nacos-0:8848/nacos "

func TestRegistering(t *testing.T) {
	environment(t, strings.Fields(registering+"LASTCALL_SERVICE_NAME=orders LASTCALL_SERVICE_METADATA=zone=a,version=2=b LASTCALL_APP_READY_URL=http://127.0.0.1:8080/ready")...)
	p, err := configure()
	if err != nil {
		t.Fatal(err)
	}
	if len(p.drain.Registries) != 3 || p.drain.AppReady == nil {
		t.Fatalf("the drain is configured as %+v", p.drain)
	}
	for _, r := range p.drain.Registries {
		if _, can := r.Registry.(drain.Registrar); !can || !r.Register {
			t.Errorf("%s: registers %v, and can %v", r.Name, r.Register, can)
		}
	}
	if got := p.registersIn(); got != "consul, eureka, nacos" {
		t.Errorf("registers in %q", got)
	}
	got, err := metadata(p.ServiceMetadata)
	if want := map[string]string{"zone": "a", "version": "2=b"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("metadata %v, %v, want %v", got, err, want)
	}
}

func TestRegisteringIsOff(t *testing.T) {
	environment(t, strings.Fields(strings.Replace(registering, "REGISTER=true", "REGISTER=false", 1)+"LASTCALL_NACOS_SERVICE=orders")...)
	p, err := configure()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range p.drain.Registries {
		if r.Register {
			t.Errorf("%s: registers, and was not told to", r.Name)
		}
	}
}

// Each mistake is one error, which says what to do.
func TestErrorsOfRegistering(t *testing.T) {
	const named = "LASTCALL_SERVICE_NAME=orders "
	for set, want := range map[string]string{
		registering: "LASTCALL_SERVICE_NAME is not set",
		registering + "LASTCALL_SERVICE_NAME=or/ders":                                                                `LASTCALL_SERVICE_NAME="or/ders"`,
		registering + named + "LASTCALL_SERVICE_METADATA=zone":                                                       `LASTCALL_SERVICE_METADATA: "zone": must be a list of key=value`,
		registering + named + "LASTCALL_SERVICE_METADATA=a=1,a=2":                                                    `LASTCALL_SERVICE_METADATA names "a" twice`,
		registering + named + "LASTCALL_SERVICE_METADATA=lastcall.a=1":                                               "lastcall's own",
		registering + named + "LASTCALL_EUREKA_APP=payments":                                                         "LASTCALL_EUREKA_APP",
		registering + named + "LASTCALL_NACOS_SERVICE=payments":                                                      "LASTCALL_NACOS_SERVICE",
		registering + named + "LASTCALL_CONSUL_REGISTER_IN=here":                                                     "LASTCALL_CONSUL_REGISTER_IN",
		"LASTCALL_SERVICE_NAME=orders":                                                                               "LASTCALL_REGISTER=true",
		"LASTCALL_REGISTER=true LASTCALL_APP_PORT=8080 " + named:                                                     "LASTCALL_REGISTRIES names nothing",
		"LASTCALL_REGISTER=true LASTCALL_APP_PORT=8080 LASTCALL_POD_IP=10.0.0.1 LASTCALL_REGISTRIES=spring " + named: "names spring, in which lastcall cannot register",
	} {
		t.Run(set, func(t *testing.T) {
			environment(t, strings.Fields(set)...)
			_, err := configure()
			if err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("got %v, want one error that says %q", err, want)
			}
		})
	}
}
