package manifests

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// clusterSide is a variant of the cluster side's deployment, made with kustomize,
// and with helm for the same result.
type clusterSide struct {
	kustomize []byte
	helm      []string // helm's flags
}

// clusterSides returns the variants in the docs.
func clusterSides(t *testing.T) map[string]clusterSide {
	t.Helper()
	composed := func(text string) []byte {
		return build(t, kustomization(t, "../admission", map[string]string{"kustomization.yaml": text}))
	}
	return map[string]clusterSide{
		"default": {build(t, deploy+"/admission"), nil},
		"webhook": {build(t, deploy+"/admission/webhook"), []string{"--set", "injection=webhook"}},
		"the gate alone": {
			composed("resources: [COMPONENT/server]\ncomponents: [COMPONENT/gate]"),
			[]string{"--set", "injection=none,check=false"},
		},
		"webhook alone": {
			composed("resources: [COMPONENT/common, COMPONENT/server]\ncomponents: [COMPONENT/inject]"),
			[]string{"--set", "injection=webhook,check=false,gate=false"},
		},
		"policy alone": {build(t, deploy+"/policy/v1"), []string{"--set", "check=false,gate=false"}},
		"policy, beta": {build(t, deploy+"/policy/v1beta1"), []string{"--set", "check=false,gate=false,policyVersion=v1beta1"}},
		"cert-manager and PodMonitor": {
			composed("resources: [COMPONENT/common, COMPONENT/server]\ncomponents: [COMPONENT/inject, COMPONENT/check, COMPONENT/gate, COMPONENT/monitoring, COMPONENT/cert-manager]"),
			[]string{"--set", "injection=webhook,certificates=cert-manager,podMonitor=true"},
		},
	}
}

// The chart and kustomize create the same objects, and the objects are consistent.
func TestAdmission(t *testing.T) {
	for name, side := range clusterSides(t) {
		t.Run(name, func(t *testing.T) {
			rendered, err := admissionChart(t, append([]string{"--namespace", "lastcall-system"}, side.helm...)...)
			if err != nil {
				t.Fatal(err)
			}
			want, got := documents(t, side.kustomize), documents(t, rendered)
			delete(want, "v1 Namespace lastcall-system") // helm does not template it: --create-namespace
			for key, text := range want {
				if got[key] != text {
					t.Errorf("%s: helm gives\n%s\nkustomize gives\n%s", key, got[key], text)
				}
			}
			for key := range got {
				if want[key] == "" {
					t.Errorf("only helm gives %s", key)
				}
			}
			checkAdmission(t, known(t, side.kustomize))
		})
	}
}

// checkAdmission checks that the objects are consistent with each other.
func checkAdmission(t *testing.T, o objects) {
	t.Helper()
	for _, d := range findAll[*appsv1.Deployment](o) {
		pod := &d.Spec.Template
		restricted(t, pod)
		c := &pod.Spec.Containers[0]
		if user := pod.Spec.SecurityContext.RunAsUser; *d.Spec.Replicas < 2 || user == nil || *user != 65532 || !*c.SecurityContext.ReadOnlyRootFilesystem || len(pod.Spec.TopologySpreadConstraints) == 0 {
			t.Errorf("%d replicas, user %v, a root file system that can be written, or replicas on one node", *d.Spec.Replicas, user)
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Error("it lacks requests, or a limit on memory")
		}
		for path, probe := range map[string]*corev1.Probe{"/livez": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
			if probe == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Scheme != corev1.URISchemeHTTPS || probe.HTTPGet.Port != intstr.FromString(c.Ports[0].Name) {
				t.Errorf("probe %v, want %s by HTTPS", probe, path)
			}
		}
		chosen := func(what string, selector *metav1.LabelSelector) {
			if s, err := metav1.LabelSelectorAsSelector(selector); err != nil || s.Empty() || !s.Matches(labels.Set(pod.Labels)) {
				t.Errorf("%s does not choose the pods %v (%v)", what, pod.Labels, err)
			}
		}
		chosen("the Deployment", d.Spec.Selector)
		chosen("the spread", pod.Spec.TopologySpreadConstraints[0].LabelSelector)
		chosen("the budget", find[*policyv1.PodDisruptionBudget](t, o).Spec.Selector)
		for _, p := range findAll[*networkingv1.NetworkPolicy](o) {
			chosen("NetworkPolicy "+p.Name, &p.Spec.PodSelector)
		}
		for _, m := range findAll[*monitoringv1.PodMonitor](o) {
			chosen("the PodMonitor", &m.Spec.Selector)
			if e := m.Spec.PodMetricsEndpoints[0]; *e.Port != c.Ports[0].Name || !strings.EqualFold(e.Scheme, "https") {
				t.Errorf("the PodMonitor scrapes %v by %v", *e.Port, e.Scheme)
			}
		}
		service := find[*corev1.Service](t, o)
		chosen("the Service", &metav1.LabelSelector{MatchLabels: service.Spec.Selector})
		if port := service.Spec.Ports[0]; port.TargetPort != intstr.FromString(c.Ports[0].Name) || c.Ports[0].ContainerPort != 9443 {
			t.Errorf("the Service leads to %v, and the container has %v", port, c.Ports)
		}
		if account := find[*corev1.ServiceAccount](t, o); account.Name != pod.Spec.ServiceAccountName || account.Namespace != d.Namespace {
			t.Errorf("the pod runs as %s", pod.Spec.ServiceAccountName)
		}
		called(t, o, service, c.Args)
		if own := slices.Contains(c.Args, "-secret=lastcall-admission-tls"); own != (len(findAll[*corev1.Secret](o)) == 1) {
			t.Errorf("%v, with %d Secrets", c.Args, len(findAll[*corev1.Secret](o)))
		}
	}
	rights(t, o)
}

// called checks that every webhook calls the Service, and only endpoints that are
// enabled.
func called(t *testing.T, o objects, service *corev1.Service, args []string) {
	t.Helper()
	var configs []admissionv1.WebhookClientConfig
	for _, m := range findAll[*admissionv1.MutatingWebhookConfiguration](o) {
		configs = append(configs, m.Webhooks[0].ClientConfig)
	}
	gate := false
	for _, v := range findAll[*admissionv1.ValidatingWebhookConfiguration](o) {
		gate = gate || v.Name == "lastcall-gate"
		for _, w := range v.Webhooks {
			configs = append(configs, w.ClientConfig)
		}
	}
	for _, config := range configs {
		s := config.Service
		if s == nil || s.Name != service.Name || s.Namespace != service.Namespace || s.Port != nil && *s.Port != 443 {
			t.Errorf("a webhook calls %v", s)
		}
		if *s.Path != "/gate" && !slices.Contains(args, "-parameters=/etc/lastcall/injection") {
			t.Errorf("%s is called, and the arguments are %q", *s.Path, args)
		}
	}
	if gate != slices.Contains(args, "-gate") {
		t.Errorf("the gate is registered: %t, and the arguments are %q", gate, args)
	}
}

// rights checks that only the gate may access pods, and that access to Secrets is
// limited to names.
func rights(t *testing.T, o objects) {
	t.Helper()
	gate := slices.ContainsFunc(findAll[*admissionv1.ValidatingWebhookConfiguration](o), func(v *admissionv1.ValidatingWebhookConfiguration) bool { return v.Name == "lastcall-gate" })
	var rules []rbacv1.PolicyRule
	for _, r := range findAll[*rbacv1.ClusterRole](o) {
		rules = append(rules, r.Rules...)
	}
	for _, r := range findAll[*rbacv1.Role](o) {
		rules = append(rules, r.Rules...)
	}
	for _, r := range rules {
		if slices.Contains(r.Resources, "pods") && !gate {
			t.Errorf("without the gate it may %v", r)
		}
		named := slices.Contains(r.Resources, "secrets") || slices.Contains(r.APIGroups, "admissionregistration.k8s.io")
		if slices.Contains(r.Verbs, "*") || slices.Contains(r.Resources, "*") || named && len(r.ResourceNames) == 0 {
			t.Errorf("it may %v", r)
		}
	}
}

// The chart's files are the same as those in deploy/.
func TestAdmissionChartFiles(t *testing.T) {
	const chart = deploy + "/helm/lastcall-admission/files/"
	from := map[string]string{
		"policy.yaml": "policy/v1/policy.yaml", "binding.yaml": "policy/v1/binding.yaml",
		"certificates.yaml": "admission/cert-manager/certificates.yaml", "podmonitor.yaml": "admission/monitoring/podmonitor.yaml",
		"inject-webhook.yaml": "admission/inject/webhook.yaml", "check-webhook.yaml": "admission/check/webhook.yaml",
		"gate-webhook.yaml": "admission/gate/webhook.yaml", "gate-rbac.yaml": "admission/gate/rbac.yaml",
		"gate-network-policy.yaml": "admission/gate/network-policy.yaml",
	}
	for _, name := range []string{"service-account.yaml", "rbac.yaml", "service.yaml", "disruption.yaml", "network-policy.yaml"} {
		from[name] = "admission/server/" + name
	}
	files, err := os.ReadDir(chart)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, ok := from[file.Name()]
		if !ok {
			t.Errorf("%s is not a copy of any file", file.Name())
			continue
		}
		if !bytes.Equal(readFile(t, chart+file.Name()), readFile(t, filepath.Join(deploy, source))) {
			t.Errorf("the chart's copy differs: cp deploy/%s deploy/helm/lastcall-admission/files/%s", source, file.Name())
		}
	}
	if len(files) != len(from) {
		t.Errorf("%d files, want %d", len(files), len(from))
	}
}

// documents returns the objects of a stream as YAML, by kind and name.
func documents(t *testing.T, text []byte) map[string]string {
	t.Helper()
	found := map[string]string{}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(strings.TrimPrefix(document, "---\n")), &object); err != nil {
			t.Fatalf("%v, in\n%s", err, document)
		}
		if len(object) == 0 {
			continue
		}
		metadata, _ := object["metadata"].(map[string]any)
		normal, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint(object["apiVersion"], " ", object["kind"], " ", metadata["name"])
		if found[key] != "" {
			t.Errorf("%s occurs twice", key)
		}
		found[key] = string(normal)
	}
	return found
}

// known decodes the objects whose Go types are available here. The others are
// checked by the API servers in the tests of admission, and by cert-manager.
func known(t *testing.T, text []byte) objects {
	t.Helper()
	var kept []string
	for key, document := range documents(t, text) {
		if !strings.HasPrefix(key, "cert-manager.io/") && !strings.Contains(key, " MutatingAdmissionPolicy") {
			kept = append(kept, document)
		}
	}
	return decode(t, []byte(strings.Join(kept, "---\n")))
}
