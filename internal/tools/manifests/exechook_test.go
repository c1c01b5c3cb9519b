package manifests

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// hookOf returns the command of a container's preStop hook.
func hookOf(c *corev1.Container) []string {
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Exec == nil {
		return nil
	}
	return c.Lifecycle.PreStop.Exec.Command
}

// hasExecHooks checks that the sidecar installs the program, that each of the app's
// containers runs it as its hook, and that the first one's hook then runs command.
func hasExecHooks(t *testing.T, pod *corev1.PodSpec, kind sidecarKind, command ...string) {
	t.Helper()
	sidecar, apps := split(t, pod, kind)
	if !installs(sidecar) {
		t.Errorf("the sidecar does not install the hook's program: %v", sidecar.Lifecycle)
	}
	for i := range apps {
		want := []string{"/lastcall/lastcall", "hook"}
		if got := hookOf(&apps[i]); len(got) < 2 || !slices.Equal(got[:2], want) {
			t.Errorf("%s: the hook is %q", apps[i].Name, got)
		}
	}
	got := hookOf(&apps[0])
	if at := slices.Index(got, "--"); at < 0 && len(command) > 0 || at >= 0 && !slices.Equal(got[at+1:], command) {
		t.Errorf("the hook is %q, want it to run %q", got, command)
	}
}

func TestKustomizeExecHook(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			o := decode(t, build(t, kustomization(t, "exec-hook/"+name, full)))
			for _, object := range o.all {
				if d, ok := object.(*appsv1.Deployment); ok && d.Name == "test-batch" && d.Spec.Template.Spec.Containers[0].Lifecycle != nil {
					t.Error("the skipped workload has a hook")
				}
			}
			o.workloads = slices.DeleteFunc(o.workloads, func(w workload) bool { return w.name == "Deployment test-batch" })
			checkAll(t, o, kind)
			for _, w := range o.workloads {
				hasExecHooks(t, &w.template.Spec, kind)
			}
		})
	}
}

// The examples in the docs work as they are.
func TestExecHookDocs(t *testing.T) {
	shown := block(t, "README.md", "exec-hook/native")
	for name, kind := range kinds {
		files := maps.Clone(full)
		files["kustomization.yaml"] = "resources: [web.yaml]\n" +
			regexp.MustCompile(`- https://\S+/deploy/kustomize/\S+\?ref=\S+`).ReplaceAllString(shown, "- COMPONENT")
		o := decode(t, build(t, kustomization(t, "exec-hook/"+name, files)))
		checkAll(t, o, kind)
		hasExecHooks(t, &o.workloads[0].template.Spec, kind, "nginx", "-s", "quit")
	}
}

func TestHelmExecHook(t *testing.T) {
	charts := helmCharts(t)
	values := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(values, []byte(block(t, "helm/README.md", "execHook:")), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, kind := range kinds {
		for more, want := range map[string]string{
			"lastcall.port=8099":                "-port 8099 --",
			"lastcall.token=orders":             "-token orders --",
			"lastcall.env.LASTCALL_RESERVE=10s": "-reserve 10s --",
		} {
			t.Run(name+" "+more, func(t *testing.T) {
				text, err := helm(t, "template", "shop", charts+"/example", "--values", values, "--set", "lastcall.mode="+name+","+more)
				if err != nil {
					t.Fatal(err)
				}
				o := decode(t, text)
				checkAll(t, o, kind)
				pod := &o.workloads[0].template.Spec
				hasExecHooks(t, pod, kind, "nginx", "-s", "quit")
				_, apps := split(t, pod, kind)
				if got := strings.Join(hookOf(&apps[0]), " "); !strings.Contains(got, want) {
					t.Errorf("the hook is %q, want it to contain %q", got, want)
				}
			})
		}
	}
}

func TestHelmExecHookMistakes(t *testing.T) {
	charts := helmCharts(t)
	for set, want := range map[string]string{
		"lastcall.execHook.enable=true":                                "additional properties 'enable' not allowed",
		"lastcall.execHook.enabled=true,lastcall.execHook.command=sh":  "/execHook/command",
		"lastcall.execHook.enabled=true,lastcall.execHook.command={1}": "/execHook/command/0",
	} {
		if _, err := helm(t, "template", "shop", charts+"/example", "--set", set); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", set, err, want)
		}
	}
}
