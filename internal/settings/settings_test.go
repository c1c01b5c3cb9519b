package settings

import (
	"strings"
	"testing"
	"time"
)

type spec struct {
	Port  int           `envconfig:"EXAMPLE_PORT_NUMBER" desc:"a port"`
	Wait  time.Duration `envconfig:"EXAMPLE_WAIT" default:"3s" desc:"a wait"`
	On    bool          `envconfig:"EXAMPLE_ON" default:"false" desc:"a switch"`
	URLs  []string      `envconfig:"EXAMPLE_URLS" desc:"addresses" secret:"url"`
	Token string        `envconfig:"EXAMPLE_TOKEN" desc:"a secret" secret:"true"`
}

func TestReadTakesValuesAndDefaults(t *testing.T) {
	t.Setenv("EXAMPLE_PORT_NUMBER", "8080")
	t.Setenv("EXAMPLE_URLS", "http://a,http://b")
	t.Setenv("TOKEN", "not ours")
	var s spec
	if err := Read(&s); err != nil {
		t.Fatal(err)
	}
	if s.Port != 8080 || s.Wait != 3*time.Second || s.On || len(s.URLs) != 2 || s.Token != "" {
		t.Fatalf("read %+v", s)
	}
}

func TestReadTellsAllMistakesAtOnce(t *testing.T) {
	t.Setenv("EXAMPLE_PORT_NUMBER", "tcp://10.0.0.1:80")
	t.Setenv("EXAMPLE_WAIT", "3 seconds")
	t.Setenv("EXAMPLE_ON", "")
	err := Read(&spec{})
	if err == nil {
		t.Fatal("three mistakes, and no error")
	}
	for _, want := range []string{
		"enableServiceLinks: false",
		`EXAMPLE_WAIT="3 seconds": must be a duration such as 500ms`,
		"EXAMPLE_ON is set and empty",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestVariablesHideSecrets(t *testing.T) {
	t.Setenv("EXAMPLE_TOKEN", "hunter2")
	t.Setenv("EXAMPLE_URLS", "http://user:p@ss:w/rd@a:8761/eureka, user:hunter3@b:80,https://plain:8761/e")
	for _, v := range Variables(&spec{}) {
		if strings.Contains(v.Value, "hunter") || strings.Contains(v.Value, "w/rd") {
			t.Errorf("%s shows %q", v.Name, v.Value)
		}
		if v.Name == "EXAMPLE_URLS" && (!strings.Contains(v.Value, "@a:8761") || !strings.Contains(v.Value, "https://plain:8761/e")) {
			t.Errorf("%s hides too much: %q", v.Name, v.Value)
		}
	}
}

func TestUnknown(t *testing.T) {
	environ := []string{
		"EXAMPLE_WAITS=1s", "EXAMPLE_NONSENSE_ALTOGETHER=x", "EXAMPLE_ON=true", "PATH=/bin",
		// A Service named lastcall-web in the pod's namespace:
		"EXAMPLE_WEB_SERVICE_HOST=10.0.0.1", "EXAMPLE_WEB_SERVICE_PORT=80", "EXAMPLE_WEB_SERVICE_PORT_HTTP=80",
		"EXAMPLE_WEB_PORT=tcp://10.0.0.1:80", "EXAMPLE_WEB_PORT_80_TCP=tcp://10.0.0.1:80",
		"EXAMPLE_WEB_PORT_80_TCP_PROTO=tcp", "EXAMPLE_WEB_PORT_80_TCP_PORT=80", "EXAMPLE_WEB_PORT_80_TCP_ADDR=10.0.0.1",
		// Looks like one, and is none:
		"EXAMPLE_OTHER_PORT=8080",
	}
	err := Unknown("EXAMPLE_", environ, &spec{})
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 3 ||
		!strings.HasPrefix(lines[0], "EXAMPLE_NONSENSE_ALTOGETHER is not a variable") ||
		!strings.HasPrefix(lines[1], "EXAMPLE_OTHER_PORT is not a variable") ||
		!strings.Contains(lines[2], "is EXAMPLE_WAIT meant?") {
		t.Fatalf("got:\n%v", err)
	}
	if err := Unknown("EXAMPLE_", []string{"EXAMPLE_WAIT=1s"}, &spec{}); err != nil {
		t.Fatal(err)
	}
}
