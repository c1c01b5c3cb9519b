// Package corpus reads the pods that tests of the injection share.
package corpus

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"lastcall/admission/inject"
)

// Case is a pod of the corpus and its parameters.
type Case struct {
	Name          string
	Pod           *corev1.Pod
	ConfigMap     *corev1.ConfigMap
	Parameters    inject.Parameters
	OwnParameters bool // the pod's file holds the parameters
}

// Read reads the pods in dir/pods. A pod's file may contain its parameters as a second
// document. All other pods share dir/parameters.yaml.
func Read(t testing.TB, dir string) []Case {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "pods", "*.yaml"))
	if err != nil || len(files) < 30 {
		t.Fatalf("found %d pods (%v)", len(files), err)
	}
	shared := read(t, filepath.Join(dir, "parameters.yaml"))
	var all []Case
	for _, file := range files {
		c := Case{Name: strings.TrimSuffix(filepath.Base(file), ".yaml"), Pod: &corev1.Pod{}, ConfigMap: &corev1.ConfigMap{}}
		first, second, own := bytes.Cut(read(t, file), []byte("\n---\n"))
		if c.OwnParameters = own; !own {
			second = shared
		}
		if err := yaml.UnmarshalStrict(first, c.Pod); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if err := yaml.UnmarshalStrict(second, c.ConfigMap); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if c.Parameters, err = inject.ParseParameters(c.ConfigMap.Data); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, c)
	}
	return all
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
