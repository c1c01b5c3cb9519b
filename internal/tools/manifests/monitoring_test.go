package manifests

import (
	"reflect"
	"slices"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

func TestMonitoring(t *testing.T) {
	o := decode(t, build(t, deploy+"/monitoring"))

	t.Run("the PodMonitor finds the pods and the port", func(t *testing.T) {
		monitor := find[*monitoringv1.PodMonitor](t, o)
		selector, err := metav1.LabelSelectorAsSelector(&monitor.Spec.Selector)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range everyPod(t) {
			if !selector.Matches(labels.Set(w.template.Labels)) {
				t.Errorf("%s: it does not choose pods with labels %v", w.name, w.template.Labels)
			}
			sidecar, _ := split(t, &w.template.Spec, anyKind)
			if !slices.ContainsFunc(sidecar.Ports, func(p corev1.ContainerPort) bool {
				return p.Name == *monitor.Spec.PodMetricsEndpoints[0].Port && p.ContainerPort == defaultPort
			}) {
				t.Errorf("%s: the sidecar's ports are %v", w.name, sidecar.Ports)
			}
		}
	})

	t.Run("the PrometheusRule has the rules", func(t *testing.T) {
		rules := find[*monitoringv1.PrometheusRule](t, o)
		var plain monitoringv1.PrometheusRuleSpec
		if err := yaml.UnmarshalStrict(readFile(t, deploy+"/monitoring/rules.yaml"), &plain); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(rules.Spec, plain) {
			t.Error("prometheusrule.yaml and rules.yaml differ from groups on")
		}
	})

	t.Run("the dashboard is in a ConfigMap", func(t *testing.T) {
		config := find[*corev1.ConfigMap](t, o)
		if config.Data["lastcall.json"] != string(readFile(t, deploy+"/monitoring/dashboard.json")) || config.Labels["grafana_dashboard"] != "1" {
			t.Errorf("labels %v, and %d bytes", config.Labels, len(config.Data["lastcall.json"]))
		}
	})
}

func TestNetworkPolicy(t *testing.T) {
	files := map[string]string{"kustomization.yaml": "components: [COMPONENT]"}
	policy := find[*networkingv1.NetworkPolicy](t, decode(t, build(t, kustomization(t, "network-policy", files))))
	selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range everyPod(t) {
		if !selector.Matches(labels.Set(w.template.Labels)) {
			t.Errorf("%s: it does not choose pods with labels %v", w.name, w.template.Labels)
		}
	}
	// Only some peers may connect to the sidecar's port.
	for _, rule := range policy.Spec.Ingress {
		for _, p := range rule.Ports {
			if p.Port == nil || p.Port.IntVal == defaultPort && len(rule.From) == 0 {
				t.Errorf("everyone may call %d", defaultPort)
			}
		}
	}
}

// The component for events gives the pods' service account, in any namespace, the
// permission to create events and no other.
func TestEventsRBAC(t *testing.T) {
	o := decode(t, build(t, kustomization(t, "events", map[string]string{
		"kustomization.yaml": "namespace: shop\ncomponents: [COMPONENT]",
	})))
	role := find[*rbacv1.Role](t, o)
	want := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create"}}}
	if !reflect.DeepEqual(role.Rules, want) {
		t.Errorf("it may %v, want %v", role.Rules, want)
	}
	binding := find[*rbacv1.RoleBinding](t, o)
	subject := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "default", Namespace: "shop"}}
	if binding.Namespace != "shop" || binding.RoleRef.Name != role.Name || !reflect.DeepEqual(binding.Subjects, subject) {
		t.Errorf("the binding is %v, of %v", binding, binding.Subjects)
	}
}

// everyPod returns the pods of all deployment methods.
func everyPod(t *testing.T) []workload {
	t.Helper()
	var all []workload
	add := func(text []byte) { all = append(all, decode(t, text).workloads...) }
	add(readFile(t, deploy+"/deployment-native.yaml"))
	add(readFile(t, deploy+"/deployment.yaml"))
	add(build(t, deploy+"/kustomize/example"))
	if text, err := helm(t, "template", "shop", helmCharts(t)+"/example"); err != nil {
		t.Error(err)
	} else {
		add(text)
	}
	if len(all) != 4 {
		t.Fatalf("%d pods, want 4", len(all))
	}
	return all
}
