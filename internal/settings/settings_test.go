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

func TestVariablesMaskSecrets(t *testing.T) {
	t.Setenv("EXAMPLE_TOKEN", "hunter2")
	for _, test := range []struct{ set, want string }{
		{"http://user:hunter2@a:8761/eureka, https://plain:8761/e", "http://***@a:8761/eureka,https://plain:8761/e"},
		{"http://a:1/metrics?token=hunter2", "http://a:1/metrics?***"},
		{"http://u:hunter%2C2@[::1]:1/a%2Fb", "http://***@[::1]:1/a%2Fb"},
		{"10.0.0.5:8500", "10.0.0.5:8500"},
		{"unix:///run/a.sock:/metrics", "unix:///run/a.sock:/metrics"},
		// A value that cannot be parsed may be a password, or a part of one.
		{"http://user:hunter2,pass@a:8761/eureka", "***"},
		{"http://user:8080,hunter2@a:8761/eureka", "***"},
		{"http://plain:8761/e,http://user:hunter2,2@a:8761/eureka", "***"},
		{"http://user:hun/ter2@a:8761/eureka", "***"},
		{"http://user:1/ter2@a:8761/eureka", "***"},
		{"http://user:1#ter2@a:8761/eureka", "***"},
		{"http://user:1?ter2@a:8761/eureka", "***"},
		{"user:hunter2@a:8761/eureka", "***"},
		{"unix://user:hunter2@/a", "***"},
		{"unix:hunter2", "***"},
		{"http://hunter2 ", "http://hunter2"},
		{"htp://hunter2", "***"},
		{"http://a:99999/hunter2", "***"},
	} {
		t.Setenv("EXAMPLE_URLS", test.set)
		for _, v := range Variables(&spec{}) {
			switch {
			case v.Name == "EXAMPLE_TOKEN" && v.Value != "***":
				t.Errorf("the token is printed as %q", v.Value)
			case v.Name == "EXAMPLE_URLS" && v.Value != test.want:
				t.Errorf("%q is printed as %q, want %q", test.set, v.Value, test.want)
			}
		}
	}
}

func TestUnknown(t *testing.T) {
	environ := []string{
		"EXAMPLE_WAITS=1s", "EXAMPLE_NONSENSE_ALTOGETHER=x", "EXAMPLE_ON=true", "PATH=/bin",
		// A Service named example-web in the pod's namespace:
		"EXAMPLE_WEB_SERVICE_HOST=10.0.0.1", "EXAMPLE_WEB_SERVICE_PORT=80", "EXAMPLE_WEB_SERVICE_PORT_HTTP=80",
		"EXAMPLE_WEB_PORT=tcp://10.0.0.1:80", "EXAMPLE_WEB_PORT_80_TCP=tcp://10.0.0.1:80",
		"EXAMPLE_WEB_PORT_80_TCP_PROTO=tcp", "EXAMPLE_WEB_PORT_80_TCP_PORT=80", "EXAMPLE_WEB_PORT_80_TCP_ADDR=10.0.0.1",
		// Looks like such a variable, but is none:
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
