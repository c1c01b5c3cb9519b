// Package manifests checks the files in deploy/ against Kubernetes' types, its Pod
// Security rules, and Lastcall's requirements for a pod.
package manifests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// deploy is the checked folder.
const deploy = "../../../deploy"

// program is Lastcall, which TestMain builds.
var program string

func TestMain(m *testing.M) { os.Exit(withProgram(m.Run)) }

func withProgram(run func() int) int {
	dir, err := os.MkdirTemp("", "lastcall")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }() // under the system's folder for temporary files
		program = filepath.Join(dir, "lastcall")
		var out []byte
		if out, err = exec.Command("go", "build", "-C", "../../..", "-trimpath", "-o", program, "./cmd/lastcall").CombinedOutput(); err != nil {
			err = fmt.Errorf("building lastcall: %w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// TestManifests checks the plain YAML files. In deploy/, the sidecar is a native
// one if the file's name says so.
func TestManifests(t *testing.T) {
	files, err := filepath.Glob(deploy + "/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 2 {
		t.Fatalf("found %v, want the classic and the native Deployment", files)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			kind := classic
			if strings.HasSuffix(file, "-native.yaml") {
				kind = native
			}
			checkAll(t, decode(t, readFile(t, file)), kind)
		})
	}
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../../examples/*/deployment.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %v (%v), want the examples", files, err)
	}
	files = append(files, "../../../examples/etcd/etcd.yaml")
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			checkAll(t, decode(t, readFile(t, file)), anyKind)
		})
	}
}

// All deployment methods create the same sidecar.
func TestAllWaysAgree(t *testing.T) {
	type same struct {
		Resources    corev1.ResourceRequirements
		Ready, Start *corev1.Probe
		Ports        []corev1.ContainerPort
	}
	var first *same
	for _, w := range everyPod(t) {
		sidecar, _ := split(t, &w.template.Spec, anyKind)
		is := same{sidecar.Resources, sidecar.ReadinessProbe, sidecar.StartupProbe, sidecar.Ports}
		if first == nil {
			first = &is
		}
		if sidecar.RestartPolicy == nil { // an ordinary container needs no startupProbe
			is.Start = first.Start
		}
		if !equality.Semantic.DeepEqual(*first, is) {
			t.Errorf("%s: the sidecar is\n%+v, and elsewhere\n%+v", w.name, is, *first)
		}
	}
}

func readFile(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
