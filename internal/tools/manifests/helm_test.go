package manifests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestHelmChart(t *testing.T) {
	charts := helmCharts(t)
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			text, err := helm(t, "template", "shop", charts+"/example", "--set", "lastcall.mode="+name)
			if err != nil {
				t.Fatal(err)
			}
			checkAll(t, decode(t, text), kind)
		})
	}
}

// Every value has the effect that values.yaml describes.
func TestHelmValues(t *testing.T) {
	charts := helmCharts(t)
	file := filepath.Join(t.TempDir(), "values.yaml")
	values := `
lastcall:
  image: registry.example.com/lastcall:2.0
  imagePullPolicy: Never
  gracePeriodSeconds: 120
  appPorts: [8080, 8443]
  env:
    LASTCALL_REGISTRIES: eureka
    LASTCALL_EUREKA_URLS: http://eureka-0:8761/eureka,http://eureka-1:8761/eureka
    LASTCALL_THRESHOLD: 1000000
    LASTCALL_EUREKA_INSECURE: true
  envFrom: [{secretRef: {name: token}}]
  hookHeaders: [{name: Authorization, value: Bearer secret}]
  volumeMounts: [{name: ca, mountPath: /ca}]
  resources: {requests: {cpu: 50m, memory: 16Mi}, limits: {memory: 64Mi}}
`
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := helm(t, "template", "shop", charts+"/example", "--values", file)
	if err != nil {
		t.Fatal(err)
	}
	pod := decode(t, text).workloads[0].template.Spec
	sidecar, apps := split(t, &pod, native)
	env := map[string]string{}
	for _, v := range sidecar.Env {
		env[v.Name] = v.Value
	}
	for name, want := range map[string]string{
		"LASTCALL_GRACE_PERIOD":    "120s",
		"LASTCALL_APP_PORT":        "8080,8443",
		"LASTCALL_REGISTRIES":      "eureka",
		"LASTCALL_EUREKA_URLS":     "http://eureka-0:8761/eureka,http://eureka-1:8761/eureka",
		"LASTCALL_THRESHOLD":       "1000000",
		"LASTCALL_EUREKA_INSECURE": "true",
	} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	if sidecar.Image != "registry.example.com/lastcall:2.0" || sidecar.ImagePullPolicy != "Never" {
		t.Errorf("image %s, %s", sidecar.Image, sidecar.ImagePullPolicy)
	}
	if *pod.TerminationGracePeriodSeconds != 120 {
		t.Errorf("a grace period of %d s", *pod.TerminationGracePeriodSeconds)
	}
	if len(sidecar.EnvFrom) != 1 || sidecar.EnvFrom[0].SecretRef.Name != "token" {
		t.Errorf("envFrom: %v", sidecar.EnvFrom)
	}
	if headers := apps[0].Lifecycle.PreStop.HTTPGet.HTTPHeaders; len(headers) != 1 || headers[0].Value != "Bearer secret" {
		t.Errorf("headers of the hook: %v", headers)
	}
	if len(sidecar.VolumeMounts) != 2 || sidecar.VolumeMounts[1].MountPath != "/ca" {
		t.Errorf("volumeMounts: %v", sidecar.VolumeMounts)
	}
	if sidecar.Resources.Limits.Memory().String() != "64Mi" || sidecar.Resources.Requests.Cpu().String() != "50m" {
		t.Errorf("resources: %v", sidecar.Resources)
	}
}

func TestHelmHostNetwork(t *testing.T) {
	charts := helmCharts(t)
	values := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(values, []byte(block(t, "helm/README.md", "hostNetwork: true")), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			text, err := helm(t, "template", "shop", charts+"/example", "--values", values, "--set", "lastcall.mode="+name)
			if err != nil {
				t.Fatal(err)
			}
			o := decode(t, text)
			checkAll(t, o, kind)
			if pod := o.workloads[0].template.Spec; !pod.HostNetwork {
				t.Error("the pod is not in its node's network")
			}
		})
	}
}

func TestHelmMistakes(t *testing.T) {
	charts := helmCharts(t)
	for _, c := range []struct{ set, want string }{
		{"lastcall.appPorts={http}", "/appPorts/0"},
		{"lastcall.mode=ambient", "value must be one of 'native', 'classic'"},
		{"lastcall.gracePeriodSeconds=60s", "/gracePeriodSeconds"},
		{"lastcall.env.LASTCALL_GRACE_PERIOD=9s", "invalid propertyName 'LASTCALL_GRACE_PERIOD'"},
		{"lastcall.env.GRACE=9s", "invalid propertyName 'GRACE'"},
		{"lastcall.hostNetwork=true,lastcall.port=9099", "/token"},
		{"lastcall.port=0", "/port"},
		{"lastcall.token=web ", "/token"},
		{"lastcall.gracePeriod=60", "additional properties 'gracePeriod' not allowed"},
	} {
		t.Run(c.set, func(t *testing.T) {
			if _, err := helm(t, "template", "shop", charts+"/example", "--set", c.set); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestHelmMissingValues(t *testing.T) {
	charts := helmCharts(t)
	if err := os.WriteFile(charts+"/example/values.yaml", []byte("{port: 8080}"), 0o600); err != nil {
		t.Fatal(err)
	}
	const want = "missing properties 'image', 'appPorts'"
	if _, err := helm(t, "template", "shop", charts+"/example"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want an error with %q", err, want)
	}
}

func TestHelmLint(t *testing.T) {
	charts := helmCharts(t)
	for _, args := range [][]string{
		{charts + "/example"},
		{charts + "/example", "--set", "lastcall.mode=classic"},
		{charts + "/lastcall", "--set", "image=registry.example.com/lastcall:1.0,appPorts={8080}"},
	} {
		if out, err := helm(t, append([]string{"lint", "--strict"}, args...)...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// helmCharts returns a copy of the charts that includes the example's dependency.
func helmCharts(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "helm")
	if err := os.CopyFS(dir, os.DirFS(deploy+"/helm")); err != nil {
		t.Fatal(err)
	}
	if _, err := helm(t, "dependency", "update", dir+"/example"); err != nil {
		t.Fatal(err)
	}
	return dir
}

// helm runs the real helm without the user's configuration. Its error contains
// helm's output.
func helm(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	home := t.TempDir()
	cmd := exec.Command(need(t, "helm"), args...)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return out, &said{err, problems.String()}
	}
	return out, nil
}

// said is a program's failure with its output.
type said struct {
	error
	text string
}

func (s *said) Error() string { return s.error.Error() + ": " + s.text }

// need returns the path of a program that `make test` builds. If it does not exist,
// the test fails.
func need(t *testing.T, name string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	path := filepath.Join(cache, "lastcall", "bin", name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	t.Fatalf("%s is not installed: `make test` installs it", path)
	return ""
}
