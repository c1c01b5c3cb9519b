package manifests

import (
	"path/filepath"
	"strings"
	"testing"
)

// The policy is the same in both versions of its API.
func TestPolicy(t *testing.T) {
	built := map[string]string{}
	for _, version := range []string{"v1", "v1beta1"} {
		text := build(t, filepath.Join(deploy, "policy", version))
		api := "apiVersion: admissionregistration.k8s.io/" + version + "\n"
		if n := strings.Count(string(text), api); n != 2 {
			t.Errorf("%s holds %d objects of that version, want the policy and its binding", version, n)
		}
		built[version] = strings.ReplaceAll(string(text), api, "")
	}
	if built["v1"] != built["v1beta1"] {
		t.Error("they differ in more than the version")
	}
}
