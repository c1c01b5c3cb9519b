package check

import (
	"os"
	"regexp"
	"testing"
	"time"
)

// The defaults here equal those in README.md. Another test compares README.md with
// the program.
func TestDefaultsAreTheSidecars(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]time.Duration{
		"LASTCALL_GRACE_PERIOD":   30 * time.Second,
		"LASTCALL_RESERVE":        defaultReserve,
		"LASTCALL_ENDPOINTS_WAIT": defaultEndpoints,
		"LASTCALL_QUIET":          defaultQuiet,
	} {
		row := regexp.MustCompile("(?m)^\\| " + name + " \\| `([^`]+)` \\|").FindSubmatch(text)
		if row == nil {
			t.Errorf("README.md has no default of %s", name)
			continue
		}
		if got, err := time.ParseDuration(string(row[1])); err != nil || got != want {
			t.Errorf("%s is %s in README.md, and %v here", name, row[1], want)
		}
	}
}

// Every registry that can be configured declares how long its clients may cache
// its answers.
func TestRefreshes(t *testing.T) {
	all := refreshes()
	for name, want := range map[string]time.Duration{
		"LASTCALL_EUREKA_CLIENT_REFRESH": 30 * time.Second,
		"LASTCALL_CONSUL_CLIENT_REFRESH": time.Second,
		"LASTCALL_NACOS_CLIENT_REFRESH":  time.Second,
		"LASTCALL_SPRING_CLIENT_REFRESH": 35 * time.Second,
		"LASTCALL_DUBBO_CLIENT_REFRESH":  time.Second,
		"LASTCALL_ETCD_CLIENT_REFRESH":   0,
		"LASTCALL_STEPS_CLIENT_REFRESH":  0,
	} {
		if got, ok := all[name]; !ok || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
		}
	}
}
