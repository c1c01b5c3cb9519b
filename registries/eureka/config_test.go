package eureka

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
)

func TestConfigMistakes(t *testing.T) {
	pod := drain.Pod{IP: "10.0.0.1", AppPort: 8080}
	good := Config{URLs: []string{"http://eureka-0:8761/eureka"}, Status: outOfService}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	many := make([]string, maxPeers+1)
	for n := range many {
		many[n] = fmt.Sprintf("http://eureka-%d/eureka", n)
	}
	for _, test := range []struct {
		name   string
		change func(*Config, *drain.Pod)
		want   []string // each must be in the error; none: no error
	}{
		{"none", func(*Config, *drain.Pod) {}, nil},
		{"id without an address", func(c *Config, p *drain.Pod) { c.InstanceID, *p = "pod-1", drain.Pod{} }, nil},
		{"user, spaces and a final slash", func(c *Config, _ *drain.Pod) { c.URLs = []string{" https://u:p%40w@eureka-0/eureka/ ", ""} }, nil},
		{"no URLs", func(c *Config, _ *drain.Pod) { c.URLs = nil }, []string{"LASTCALL_EUREKA_URLS is not set", "http://eureka-0"}},
		{"empty URLs", func(c *Config, _ *drain.Pod) { c.URLs = []string{"", " "} }, []string{"LASTCALL_EUREKA_URLS is not set"}},
		{"no scheme", func(c *Config, _ *drain.Pod) { c.URLs = []string{"eureka-0:8761/eureka"} }, []string{"LASTCALL_EUREKA_URLS, entry 1", "http://eureka-0:8761/eureka"}},
		{"no host", func(c *Config, _ *drain.Pod) { c.URLs = []string{good.URLs[0], "http:///eureka"} }, []string{"LASTCALL_EUREKA_URLS, entry 2"}},
		{"no such port", func(c *Config, _ *drain.Pod) { c.URLs = []string{"http://eureka-0:99999/eureka"} }, []string{"LASTCALL_EUREKA_URLS, entry 1"}},
		{"no port after the colon", func(c *Config, _ *drain.Pod) { c.URLs = []string{"http://eureka-0:/eureka"} }, []string{"LASTCALL_EUREKA_URLS, entry 1"}},
		{"another scheme", func(c *Config, _ *drain.Pod) { c.URLs = []string{"ftp://eureka-0"} }, []string{"LASTCALL_EUREKA_URLS, entry 1"}},
		{"query", func(c *Config, _ *drain.Pod) { c.URLs = []string{"http://eureka-0/eureka?x=y"} }, []string{"nothing may follow the path"}},
		{"twice", func(c *Config, _ *drain.Pod) {
			c.URLs = []string{"http://eureka-0/eureka", "http://u:p@eureka-0/eureka/"}
		}, []string{"entry 2", "twice"}},
		{"too many", func(c *Config, _ *drain.Pod) { c.URLs = many }, []string{"LASTCALL_EUREKA_URLS", "at most 16"}},
		{"status", func(c *Config, _ *drain.Pod) { c.Status = "UP" }, []string{`LASTCALL_EUREKA_STATUS="UP"`, "OUT_OF_SERVICE or DOWN"}},
		{"no port", func(_ *Config, p *drain.Pod) { p.AppPort = 0 }, []string{"LASTCALL_EUREKA_INSTANCE_ID", "LASTCALL_APP_PORT", "LASTCALL_POD_IP"}},
		{"no address", func(_ *Config, p *drain.Pod) { p.IP = "" }, []string{"LASTCALL_EUREKA_INSTANCE_ID", "LASTCALL_POD_IP"}},
		{"refresh", func(c *Config, _ *drain.Pod) { c.ClientRefresh = -time.Second }, []string{"LASTCALL_EUREKA_CLIENT_REFRESH=-1s"}},
		{"no CA file", func(c *Config, _ *drain.Pod) { c.CAFile = empty + ".not" }, []string{"LASTCALL_EUREKA_CA_FILE", "no such file"}},
		{"empty CA file", func(c *Config, _ *drain.Pod) { c.CAFile = empty }, []string{"LASTCALL_EUREKA_CA_FILE", "BEGIN CERTIFICATE"}},
		{"everything at once", func(c *Config, p *drain.Pod) {
			*c, *p = Config{URLs: []string{"x", "y"}, Status: "x", ClientRefresh: -1, CAFile: empty}, drain.Pod{}
		}, []string{"entry 1", "entry 2", "INSTANCE_ID", "STATUS", "CLIENT_REFRESH", "CA_FILE"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, p := good, pod
			test.change(&c, &p)
			r, err := New(c, p)
			if len(test.want) == 0 && (err != nil || r == nil) {
				t.Errorf("got %v, want no error", err)
			}
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
		})
	}
}

// A password that is not encoded is not shown, whatever it is parsed as.
func TestPasswordsInMistakes(t *testing.T) {
	for _, password := range []string{"sec%zzret", "sec/ret", "1/sec@ret", "1#secret", "1?secret", "sec ret", `sec\ret`, "sec[ret",
		"sec,ret", "1,sec", "1,http://user:1,sec"} {
		// A comma in a password splits the list, as it does in the environment.
		urls := strings.Split("http://user:"+password+"@eureka-0:8761/eureka", ",")
		_, err := New(Config{URLs: urls, Status: "wrong"}, drain.Pod{})
		if err == nil || strings.Contains(err.Error(), "sec") || strings.Contains(err.Error(), "ret@") || strings.Contains(err.Error(), "user:1") {
			t.Errorf("with the password %q: %v", password, err)
		}
	}
}
