package inject

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write what Pod returns to testdata/golden")

// TestCorpus compares what becomes of each pod in testdata/pods with its file in
// testdata/golden.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/pods/*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("found %d pods (%v)", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			pod, p := readCase(t, file)
			before := pod.DeepCopy()
			out, warnings := Pod(pod, p)
			if !equality.Semantic.DeepEqual(pod, before) {
				t.Error("Pod changed its argument")
			}
			again, _ := Pod(out, p)
			if !equality.Semantic.DeepEqual(out, again) {
				t.Error("a second call changes the pod again")
			}
			compare(t, filepath.Join("testdata/golden", filepath.Base(file)), golden(t, out, warnings))
		})
	}
}

// readCase reads a pod, and the parameters that follow it in the file or those
// that all others share.
func readCase(t *testing.T, file string) (*corev1.Pod, Parameters) {
	t.Helper()
	first, second, own := bytes.Cut(read(t, file), []byte("\n---\n"))
	if !own {
		second = read(t, "testdata/parameters.yaml")
	}
	var pod corev1.Pod
	var config corev1.ConfigMap
	if err := yaml.UnmarshalStrict(first, &pod); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(second, &config); err != nil {
		t.Fatal(err)
	}
	p, err := ParseParameters(config.Data)
	if err != nil {
		t.Fatal(err)
	}
	return &pod, p
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
	if want := read(t, file); !bytes.Equal(got, want) {
		t.Errorf("the pod became\n%s\n%s holds\n%s", got, file, want)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
