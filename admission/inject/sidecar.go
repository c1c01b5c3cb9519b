package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// imageUser is the user of Lastcall's image.
const imageUser int64 = 65532

// sidecar returns the native sidecar, which meets Pod Security's level restricted. It
// has no livenessProbe and no preStop hook: these would end or begin a drain in a pod
// that is not being deleted.
func sidecar(pod *corev1.Pod, p Parameters, env []corev1.EnvVar, port int32) corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	c := corev1.Container{
		Name:            Sidecar,
		Image:           p.Image,
		ImagePullPolicy: p.PullPolicy,
		RestartPolicy:   &always,
		Env:             env,
		Ports:           []corev1.ContainerPort{{Name: Sidecar, ContainerPort: port}},
		StartupProbe:    probe("/livez", port),  // the app starts once the sidecar answers
		ReadinessProbe:  probe("/readyz", port), // takes the pod out of its Services as soon as a drain begins
		Resources:       *p.Resources.DeepCopy(),
		VolumeMounts:    []corev1.VolumeMount{sharedMount()},
		SecurityContext: securityContext(pod),
	}
	c.StartupProbe.FailureThreshold = 30
	c.ReadinessProbe.FailureThreshold = 1
	c.ReadinessProbe.TimeoutSeconds = 5
	if name := pod.Annotations[Config]; name != "" {
		optional := true
		ref := corev1.LocalObjectReference{Name: name}
		c.EnvFrom = []corev1.EnvFromSource{
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref, Optional: &optional}},
		}
	}
	return c
}

// install adds a postStart hook that copies the program to the shared volume, for
// hooks that run in the app's container.
func install(c *corev1.Container) {
	c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{
		Exec: &corev1.ExecAction{Command: []string{"/bin/lastcall", "install", Folder}},
	}}
}

func securityContext(pod *corev1.Pod) *corev1.SecurityContext {
	yes, no := true, false
	s := &corev1.SecurityContext{
		RunAsNonRoot:             &yes,
		AllowPrivilegeEscalation: &no,
		ReadOnlyRootFilesystem:   &yes,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	// In a pod that runs as root, the sidecar would run as root too. Its runAsNonRoot
	// forbids that, and the pod would not start.
	if given := pod.Spec.SecurityContext; given != nil && given.RunAsUser != nil && *given.RunAsUser == 0 {
		user := imageUser
		s.RunAsUser = &user
	}
	return s
}

func probe(path string, port int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(port)}},
		PeriodSeconds: 1,
	}
}

func sharedMount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: Volume, MountPath: Folder}
}
