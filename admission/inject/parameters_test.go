package inject

import (
	"strings"
	"testing"
)

func TestParametersAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		data map[string]string
		want string
	}{
		"no image":      {map[string]string{}, "image is not set"},
		"pull policy":   {map[string]string{"image": "x", "imagePullPolicy": "Sometimes"}, `imagePullPolicy="Sometimes"`},
		"quantity":      {map[string]string{"image": "x", "memoryLimit": "much"}, `memoryLimit="much"`},
		"reserve":       {map[string]string{"image": "x", "LASTCALL_RESERVE": "5"}, `LASTCALL_RESERVE="5"`},
		"misspelt name": {map[string]string{"image": "x", "memoryLimits": "1Mi"}, "memoryLimits is not a parameter"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseParameters(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := ParseParameters(map[string]string{"image": "x", "CONSUL_HTTP_ADDR": "consul:8500"}); err != nil {
		t.Error(err)
	}
}

// An annotation sets a variable only if the name is valid in a container.
func TestVariableOf(t *testing.T) {
	for key, want := range map[string]string{
		"lastcall/EUREKA_APP":   "LASTCALL_EUREKA_APP",
		"lastcall/A1":           "LASTCALL_A1",
		"lastcall/container":    "",
		"lastcall/1A":           "",
		"lastcall/":             "",
		"lastcall/A-B":          "",
		"lastcall/Ab":           "",
		"other/EUREKA_APP":      "",
		"lastcall/gate-timeout": "",
	} {
		if got, ok := VariableOf(key); got != want || ok != (want != "") {
			t.Errorf("VariableOf(%q) = %q, %v", key, got, ok)
		}
	}
}
