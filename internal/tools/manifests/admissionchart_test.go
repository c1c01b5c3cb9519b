package manifests

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// admissionChart renders the chart of the cluster side.
func admissionChart(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	return helm(t, append([]string{"template", "lastcall", deploy + "/helm/lastcall-admission", "--kube-version", "1.36"}, args...)...)
}

func TestAdmissionChartValues(t *testing.T) {
	text, err := admissionChart(t, "--namespace", "ops", "--set", "injection=webhook,replicas=3,image=mirror/a:2,imagePullPolicy=Always,priorityClassName=high,"+
		"networkPolicy=false,parameters.image=mirror/l:2,parameters.LASTCALL_REGISTRIES=consul,resources.limits.memory=1Gi,imagePullSecrets[0].name=pull,nodeSelector.zone=a",
		"--set", "args={-gate-hold=0s}")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "lastcall-system") {
		t.Error("it names a namespace other than the release's")
	}
	if strings.Contains(string(text), "kind: NetworkPolicy") {
		t.Error("there is a NetworkPolicy")
	}
	o := known(t, text)
	d := find[*appsv1.Deployment](t, o)
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]
	if *d.Spec.Replicas != 3 || c.Image != "mirror/a:2" || c.ImagePullPolicy != corev1.PullAlways || pod.PriorityClassName != "high" ||
		c.Resources.Limits.Memory().String() != "1Gi" || pod.ImagePullSecrets[0].Name != "pull" || pod.NodeSelector["zone"] != "a" {
		t.Errorf("values are missing in %v", d.Spec)
	}
	for _, arg := range []string{"-namespace=ops", "-gate-hold=0s", "-gate"} {
		if !slices.Contains(c.Args, arg) {
			t.Errorf("%s is not among %q", arg, c.Args)
		}
	}
	if data := o.configMaps["lastcall-injection"].Data; data["image"] != "mirror/l:2" || data["LASTCALL_REGISTRIES"] != "consul" {
		t.Errorf("the parameters are %v", data)
	}
}

func TestAdmissionChartMistakes(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"injection=both", "value must be one of 'policy', 'webhook', 'none'"},
		{"gate=maybe", "/gate"},
		{"certificates=vault", "/certificates"},
		{"parameters.image=", "/parameters/image"},
		{"parameters.LASTCALL-REGISTRIES=consul", "LASTCALL-REGISTRIES"},
		{"args={gate-hold=0s}", "/args/0"},
		{"replica=3", "additional properties 'replica' not allowed"},
	} {
		t.Run(c.set, func(t *testing.T) {
			if _, err := admissionChart(t, "--set", c.set); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestAdmissionChartLint(t *testing.T) {
	for _, set := range []string{"gate=true", "injection=webhook,certificates=cert-manager,podMonitor=true", "injection=none,check=false,gate=false"} {
		if out, err := helm(t, "lint", "--strict", deploy+"/helm/lastcall-admission", "--kube-version", "1.36", "--set", set); err != nil {
			t.Errorf("%s: %v\n%s", set, err, out)
		}
	}
}
