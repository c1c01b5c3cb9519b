package check

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"lastcall/admission/inject"
)

// input is everything that rules read.
type input struct {
	Options
	objects    []Object
	workloads  []workload
	configMaps map[string]map[string]string // by namespace/name
	secrets    map[string]map[string]string
	scaled     map[string]bool // workloads whose replicas an autoscaler sets, by namespace/kind/name
}

// workload is a pod, or an object that creates pods, with the sidecar or the label
// that requests it.
type workload struct {
	*Object
	path    []any       // of its pod template; empty for a Pod
	given   *corev1.Pod // as in the manifest
	pod     *corev1.Pod // after the injection, if it is requested
	labels  map[string]string
	apps    []int // indexes of the app's containers
	sidecar *corev1.Container
	native  bool
	at      []any // the sidecar's path
	env     environment
	spec    workloadSpec
	skipped string // why the injection leaves the pod unchanged
}

// workloadSpec holds the fields that rules read from the spec of a Deployment,
// StatefulSet, and so on. The field names are the same in all kinds.
type workloadSpec struct {
	Replicas        *int32
	MinReadySeconds int32
	Strategy        updateStrategy // of a Deployment
	UpdateStrategy  updateStrategy // of a StatefulSet or DaemonSet
	Template        *corev1.PodTemplateSpec
	JobTemplate     *struct { // of a CronJob
		Spec struct{ Template *corev1.PodTemplateSpec }
	}
	ScaleTargetRef *struct{ Kind, Name string } // of an autoscaler
}

type updateStrategy struct {
	Type          string
	RollingUpdate *struct{ MaxUnavailable *intstr.IntOrString }
}

// newInput prepares the objects for the rules. It ignores objects that cannot be
// decoded as their kind: the API server rejects them.
func newInput(objects []Object, options Options) *input {
	in := &input{
		Options: options, objects: objects,
		configMaps: map[string]map[string]string{}, secrets: map[string]map[string]string{}, scaled: map[string]bool{},
	}
	for i := range objects {
		in.collect(&objects[i])
	}
	for i := range objects {
		if w := in.workload(&objects[i]); w != nil {
			in.workloads = append(in.workloads, *w)
		}
	}
	return in
}

// collect stores o if it is an object that affects workloads: a ConfigMap, a Secret or
// an autoscaler.
func (in *input) collect(o *Object) {
	key := o.Namespace + "/" + o.Name
	switch o.Kind {
	case "ConfigMap":
		var c corev1.ConfigMap
		if o.decode(&c) != nil {
			return
		}
		in.configMaps[key] = c.Data
		if o.Name == "lastcall-injection" {
			if p, err := inject.ParseParameters(c.Data); err == nil {
				in.Parameters = p
			}
		}
	case "Secret":
		var s corev1.Secret
		if o.decode(&s) != nil {
			return
		}
		data := map[string]string{}
		for name, value := range s.Data {
			data[name] = string(value)
		}
		for name, value := range s.StringData {
			data[name] = value
		}
		in.secrets[key] = data
	case "HorizontalPodAutoscaler", "ScaledObject":
		var scaler struct{ Spec workloadSpec }
		if o.decode(&scaler) == nil && scaler.Spec.ScaleTargetRef != nil {
			target := scaler.Spec.ScaleTargetRef
			in.scaled[o.Namespace+"/"+cmp.Or(target.Kind, "Deployment")+"/"+target.Name] = true
		}
	}
}

// workload returns the workload that o describes. It returns nil if o is no workload,
// or neither has the sidecar nor requests it.
func (in *input) workload(o *Object) *workload {
	w := &workload{Object: o}
	if o.Kind == "Pod" {
		w.given = &corev1.Pod{}
		if o.decode(w.given) != nil {
			return nil
		}
	} else {
		var owner struct{ Spec workloadSpec }
		if o.decode(&owner) != nil {
			return nil
		}
		w.spec = owner.Spec
		template := w.spec.Template
		w.path = []any{"spec", "template"}
		if job := w.spec.JobTemplate; job != nil {
			template = job.Spec.Template
			w.path = []any{"spec", "jobTemplate", "spec", "template"}
		}
		if template == nil || len(template.Spec.Containers) == 0 {
			return nil
		}
		w.given = &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	}
	w.labels = w.given.Labels
	w.pod = w.given
	w.apps = inject.Apps(w.given)
	asked := w.given.Labels[inject.Label] == "true"
	if asked {
		w.skipped = inject.Skip(w.given)
		w.pod, _ = inject.Pod(w.given, in.Parameters)
	}
	if !w.find() && !asked {
		return nil
	}
	if w.sidecar != nil {
		w.env = in.environment(o.Namespace, w.sidecar)
	}
	return w
}

// find sets w's fields about the sidecar, and reports whether there is one.
func (w *workload) find() bool {
	for i := range w.pod.Spec.InitContainers {
		if w.pod.Spec.InitContainers[i].Name == inject.Sidecar {
			w.sidecar, w.native, w.at = &w.pod.Spec.InitContainers[i], true, w.in("spec", "initContainers", i)
		}
	}
	for i := range w.pod.Spec.Containers {
		if w.pod.Spec.Containers[i].Name == inject.Sidecar {
			w.sidecar, w.native, w.at = &w.pod.Spec.Containers[i], false, w.in("spec", "containers", i)
		}
	}
	return w.sidecar != nil
}

// in returns the path of a field of the pod.
func (w *workload) in(path ...any) []any { return slices.Concat(w.path, path) }

// below returns the path of a field of the sidecar.
func (w *workload) below(path ...any) []any { return slices.Concat(w.at, path) }

// injected reports whether the injection has added the sidecar.
func (w *workload) injected() bool { return w.pod != w.given && w.skipped == "" }

// grace returns the pod's terminationGracePeriodSeconds, or Kubernetes' default.
func (w *workload) grace() int64 {
	if s := w.pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return *s
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}

// replicas returns the desired number of pods, and whether it is known.
func (in *input) replicas(w *workload) (n int, known bool) {
	if w.spec.Replicas != nil {
		return int(*w.spec.Replicas), true
	}
	return 1, !in.scaled[w.Namespace+"/"+w.Kind+"/"+w.Name]
}

// finding returns a Finding about the field of w at path.
func (w *workload) finding(rule string, path []any, message, fix string) Finding {
	return Finding{Rule: rule, File: w.File, Line: w.line(path...), Object: w.title(), Message: message, Fix: fix}
}

// selects reports whether a selector selects w's pods. An invalid selector selects
// none.
func (w *workload) selects(s *metav1.LabelSelector) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labelSet(w.labels))
}
