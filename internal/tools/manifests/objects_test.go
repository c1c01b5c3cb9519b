package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"io"
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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// workload is a Deployment or a StatefulSet.
type workload struct {
	name     string
	selector *metav1.LabelSelector
	template *corev1.PodTemplateSpec
}

// objects are the objects in a stream of YAML.
type objects struct {
	all        []runtime.Object
	workloads  []workload
	configMaps map[string]*corev1.ConfigMap
}

// findAll returns the objects of type T.
func findAll[T runtime.Object](o objects) (found []T) {
	for _, object := range o.all {
		if o, ok := object.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

// find returns the only object of type T.
func find[T runtime.Object](t *testing.T, o objects) T {
	t.Helper()
	found := findAll[T](o)
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T, want one", len(found), *new(T))
	}
	return found[0]
}

// decode parses a stream of YAML. Kinds and fields that are unknown to Kubernetes
// and the Prometheus Operator are errors.
func decode(t *testing.T, text []byte) objects {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, rbacv1.AddToScheme, monitoringv1.AddToScheme,
		admissionv1.AddToScheme, policyv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	found := objects{configMaps: map[string]*corev1.ConfigMap{}}
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%v, in\n%s", err, document)
		}
		found.all = append(found.all, object)
		switch o := object.(type) {
		case *appsv1.Deployment:
			found.workloads = append(found.workloads, workload{"Deployment " + o.Name, o.Spec.Selector, &o.Spec.Template})
		case *appsv1.StatefulSet:
			found.workloads = append(found.workloads, workload{"StatefulSet " + o.Name, o.Spec.Selector, &o.Spec.Template})
		case *corev1.ConfigMap:
			found.configMaps[o.Name] = o
		}
	}
}

// checkAll checks every workload.
func checkAll(t *testing.T, o objects, kind sidecarKind) {
	t.Helper()
	if len(o.workloads) == 0 {
		t.Fatal("no Deployment and no StatefulSet")
	}
	for _, w := range o.workloads {
		t.Run(w.name, func(t *testing.T) {
			selector, err := metav1.LabelSelectorAsSelector(w.selector)
			if err != nil || !selector.Matches(labels.Set(w.template.Labels)) {
				t.Errorf("the selector %v does not choose the pods %v (%v)", w.selector, w.template.Labels, err)
			}
			checkPod(t, o, w.template, kind)
		})
	}
}
