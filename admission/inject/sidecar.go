package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// imageUser is the user of Lastcall's image.
const imageUser int64 = 65532

// sidecar returns the native sidecar. It has no livenessProbe and no preStop:
// either would begin or end a drain in a pod that is not being deleted.
func sidecar(pod *corev1.Pod, p Parameters, env []corev1.EnvVar, port int32) corev1.Container {
	c := base(pod, p)
	c.Name = Sidecar
	always := corev1.ContainerRestartPolicyAlways
	c.RestartPolicy = &always
	c.Env = env
	if name := pod.Annotations[Config]; name != "" {
		optional := true
		ref := corev1.LocalObjectReference{Name: name}
		c.EnvFrom = []corev1.EnvFromSource{
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref, Optional: &optional}},
		}
	}
	c.Ports = []corev1.ContainerPort{{Name: Sidecar, ContainerPort: port}}
	// The app starts once the sidecar answers.
	c.StartupProbe = probe("/livez", port)
	c.StartupProbe.FailureThreshold = 30
	// The pod is ready when all its containers are: this probe takes it out of
	// its Services as soon as a drain begins.
	c.ReadinessProbe = probe("/readyz", port)
	c.ReadinessProbe.FailureThreshold = 1
	c.ReadinessProbe.TimeoutSeconds = 5
	return c
}

// installer returns the init container that copies the program to the shared
// volume, for hooks that run in the app's container.
func installer(pod *corev1.Pod, p Parameters) corev1.Container {
	c := base(pod, p)
	c.Name = Installer
	c.Args = []string{"install", Program}
	return c
}

// base is what both have in common. It meets Pod Security's level restricted.
func base(pod *corev1.Pod, p Parameters) corev1.Container {
	yes, no := true, false
	c := corev1.Container{
		Image:           p.Image,
		ImagePullPolicy: p.PullPolicy,
		Resources:       *p.Resources.DeepCopy(),
		VolumeMounts:    []corev1.VolumeMount{sharedMount()},
		SecurityContext: &corev1.SecurityContext{
			RunAsNonRoot:             &yes,
			AllowPrivilegeEscalation: &no,
			ReadOnlyRootFilesystem:   &yes,
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
	// A pod that runs as root would start the sidecar as root too, which its
	// runAsNonRoot forbids: the pod would not start.
	if s := pod.Spec.SecurityContext; s != nil && s.RunAsUser != nil && *s.RunAsUser == 0 {
		user := imageUser
		c.SecurityContext.RunAsUser = &user
	}
	return c
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
