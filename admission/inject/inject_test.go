package inject_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"

	"lastcall/admission/inject"
	"lastcall/admission/internal/corpus"
)

var update = flag.Bool("update", false, "write what Pod returns to testdata/golden")

// TestCorpus compares the result for each pod in testdata/pods with its file in
// testdata/golden.
func TestCorpus(t *testing.T) {
	for _, c := range corpus.Read(t, "testdata") {
		t.Run(c.Name, func(t *testing.T) {
			before := c.Pod.DeepCopy()
			out, warnings := inject.Pod(c.Pod, c.Parameters)
			if !equality.Semantic.DeepEqual(c.Pod, before) {
				t.Error("Pod changed its argument")
			}
			again, _ := inject.Pod(out, c.Parameters)
			if !equality.Semantic.DeepEqual(out, again) {
				t.Error("a second call changes the pod again")
			}
			compare(t, filepath.Join("testdata", "golden", c.Name+".yaml"), golden(t, out, warnings))
		})
	}
}

func golden(t *testing.T, pod *corev1.Pod, warnings []string) []byte {
	t.Helper()
	text, err := yaml.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, warning := range warnings {
		out.WriteString("# " + warning + "\n")
	}
	out.Write(text)
	return out.Bytes()
}

func compare(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the pod became\n%s\n%s holds\n%s", got, file, want)
	}
}
