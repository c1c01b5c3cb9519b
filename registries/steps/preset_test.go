package steps

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/settings"
)

// needed returns the environment variables that presets need.
func needed(t *testing.T) map[string]string {
	return map[string]string{
		"LASTCALL_TIKV_PD_URLS": "http://pd-0:2379,http://user:hunter@pd-1:2379", "LASTCALL_ETCD_URL": "http://127.0.0.1:2379/",
		"LASTCALL_VAULT_TOKEN_FILE": secretFile(t, "hunter"), "LASTCALL_APISIX_URL": "http://apisix:9180",
		"LASTCALL_APISIX_UPSTREAM": "web", "LASTCALL_APISIX_KEY_FILE": secretFile(t, "hunter"),
	}
}

// Every preset is a valid file, has a section in the docs and a row in
// README.md, and shows no secret.
func TestPresets(t *testing.T) {
	docs, err := os.ReadFile(filepath.Join("..", "..", "docs", "steps.md"))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	pod := drain.Pod{Name: "pod-0", IP: "10.0.0.1", AppPort: 8080}
	presets := Presets(all)
	if len(presets) != 8 {
		t.Errorf("there are %d presets", len(presets))
	}
	for _, p := range presets {
		t.Run(p.Name, func(t *testing.T) {
			r := preset(t, p.Name, pod, needed(t))
			if shown := r.Steps(); strings.Contains(shown, "hunter") || strings.Contains(shown, "preset") || strings.Contains(shown, "LASTCALL_") {
				t.Errorf("the effective steps hold what they should not:\n%s", shown)
			}
			if role := slices.Contains([]string{"etcd", "patroni", "tikv", "vault"}, p.Name); r.Lists() == role {
				t.Errorf("Lists says %v", r.Lists())
			}
			if !strings.Contains(string(docs), "\n### "+p.Name+"\n") || !strings.Contains(string(readme), "`"+p.Name+"`") {
				t.Error("docs/steps.md has no section about it, or README.md does not name it")
			}
			for _, v := range settings.Variables(p.Settings) {
				if prefix := "LASTCALL_" + strings.ToUpper(p.Name) + "_"; !strings.HasPrefix(v.Name, prefix) || v.Desc == "" {
					t.Errorf("the variable %s does not begin with %s, or says not what it is for", v.Name, prefix)
				}
			}
		})
	}
}

// All missing settings of a preset are reported at once, by the variables'
// names.
func TestPresetMistakes(t *testing.T) {
	for _, test := range []struct {
		preset string
		env    map[string]string
		want   []string
	}{
		{"etcd", nil, []string{"LASTCALL_ETCD_URL is not set", "client URL"}},
		{"etcd", map[string]string{"LASTCALL_ETCD_URL": "user:hunter@x"}, []string{"LASTCALL_ETCD_URL must be an http:// or https:// URL"}},
		{"etcd", map[string]string{"LASTCALL_ETCD_URL": "http://x", "LASTCALL_ETCD_CERT_FILE": "/x"}, []string{"tls.cert and tls.key"}},
		{"tikv", map[string]string{"LASTCALL_TIKV_CLIENT_REFRESH": "-1s"}, []string{"LASTCALL_TIKV_PD_URLS is not set", "its default needs LASTCALL_POD_NAME", "LASTCALL_TIKV_CLIENT_REFRESH=-1s"}},
		{"spring", map[string]string{"LASTCALL_SPRING_STATUS": "UP"}, []string{`LASTCALL_SPRING_STATUS="UP": must be one of DOWN, OUT_OF_SERVICE`}},
		{"apisix", map[string]string{"LASTCALL_APISIX_URL": "http://x", "LASTCALL_APISIX_UPSTREAM": "u", "LASTCALL_APISIX_KEY_FILE": "/x"}, []string{"preset apisix:", "${LASTCALL_APP_PORT} is not set"}},
	} {
		_, err := newFromPreset(t, test.preset, drain.Pod{IP: "10.0.0.1"}, test.env)
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter") {
				t.Errorf("%s: got %v, want %q in it", test.preset, err, want)
			}
		}
		for name := range test.env {
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The client refresh of a preset reaches the drainer.
func TestPresetRefresh(t *testing.T) {
	t.Setenv("LASTCALL_SPRING_CLIENT_REFRESH", "95s")
	for _, p := range Presets(all) {
		if p.Name != "spring" {
			continue
		}
		if err := settings.Read(p.Settings); err != nil {
			t.Fatal(err)
		}
		a, err := p.New(drain.Pod{})
		if err != nil || a.ClientRefresh != 95*time.Second || a.Name != "spring" {
			t.Errorf("got %v, %v", a, err)
		}
	}
}

// all selects every preset.
func all(string) bool { return true }

// A preset that is not wanted has the same variables as one that is.
func TestUnwantedPresets(t *testing.T) {
	none := Presets(func(string) bool { return false })
	for i, p := range Presets(all) {
		var want, got []string
		for _, v := range settings.Variables(p.Settings) {
			want = append(want, v.Name)
		}
		for _, v := range settings.Variables(none[i].Settings) {
			got = append(got, v.Name)
		}
		if !slices.Equal(got, want) || none[i].Name != p.Name {
			t.Errorf("%s: has %v, want %v", none[i].Name, got, want)
		}
		if err := settings.Read(none[i].Settings); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if _, err := none[i].New(drain.Pod{}); err == nil {
			t.Errorf("%s can be made without being read", p.Name)
		}
	}
}
