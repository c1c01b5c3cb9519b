package settings

import (
	"strings"
	"testing"
	"time"
)

type spec struct {
	Port  int           `envconfig:"LASTCALL_PORT_NUMBER" desc:"a port"`
	Wait  time.Duration `envconfig:"LASTCALL_WAIT" default:"3s" desc:"a wait"`
	On    bool          `envconfig:"LASTCALL_ON" default:"false" desc:"a switch"`
	URLs  []string      `envconfig:"LASTCALL_URLS" desc:"addresses" secret:"url"`
	Token string        `envconfig:"LASTCALL_TOKEN" desc:"a secret" secret:"true"`
}

func TestReadTakesValuesAndDefaults(t *testing.T) {
	t.Setenv("LASTCALL_PORT_NUMBER", "8080")
	t.Setenv("LASTCALL_URLS", "http://a,http://b")
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
	t.Setenv("LASTCALL_PORT_NUMBER", "tcp://10.0.0.1:80")
	t.Setenv("LASTCALL_WAIT", "3 seconds")
	t.Setenv("LASTCALL_ON", "")
	err := Read(&spec{})
	if err == nil {
		t.Fatal("three mistakes, and no error")
	}
	for _, want := range []string{
		"enableServiceLinks: false",
		`LASTCALL_WAIT="3 seconds": must be a duration such as 500ms`,
		"LASTCALL_ON is set and empty",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestVariablesHideSecrets(t *testing.T) {
	t.Setenv("LASTCALL_TOKEN", "hunter2")
	t.Setenv("LASTCALL_URLS", "http://user:p@ss:w/rd@a:8761/eureka, user:hunter3@b:80,https://plain:8761/e")
	for _, v := range Variables(&spec{}) {
		if strings.Contains(v.Value, "hunter") || strings.Contains(v.Value, "w/rd") {
			t.Errorf("%s shows %q", v.Name, v.Value)
		}
		if v.Name == "LASTCALL_URLS" && (!strings.Contains(v.Value, "@a:8761") || !strings.Contains(v.Value, "https://plain:8761/e")) {
			t.Errorf("%s hides too much: %q", v.Name, v.Value)
		}
	}
}

func TestUnknown(t *testing.T) {
	environ := []string{
		"LASTCALL_WAITS=1s", "LASTCALL_NONSENSE_ALTOGETHER=x", "LASTCALL_ON=true", "PATH=/bin",
		// A Service named lastcall-web in the pod's namespace:
		"LASTCALL_WEB_SERVICE_HOST=10.0.0.1", "LASTCALL_WEB_SERVICE_PORT=80", "LASTCALL_WEB_SERVICE_PORT_HTTP=80",
		"LASTCALL_WEB_PORT=tcp://10.0.0.1:80", "LASTCALL_WEB_PORT_80_TCP=tcp://10.0.0.1:80",
		"LASTCALL_WEB_PORT_80_TCP_PROTO=tcp", "LASTCALL_WEB_PORT_80_TCP_PORT=80", "LASTCALL_WEB_PORT_80_TCP_ADDR=10.0.0.1",
		// Looks like one, and is none:
		"LASTCALL_OTHER_PORT=8080",
	}
	err := Unknown("LASTCALL_", environ, &spec{})
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 3 ||
		!strings.HasPrefix(lines[0], "LASTCALL_NONSENSE_ALTOGETHER is not a variable") ||
		!strings.HasPrefix(lines[1], "LASTCALL_OTHER_PORT is not a variable") ||
		!strings.Contains(lines[2], "is LASTCALL_WAIT meant?") {
		t.Fatalf("got:\n%v", err)
	}
	if err := Unknown("LASTCALL_", []string{"LASTCALL_WAIT=1s"}, &spec{}); err != nil {
		t.Fatal(err)
	}
}
