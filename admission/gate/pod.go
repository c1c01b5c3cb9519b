package gate

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// sidecarOf returns the pod's sidecar, or nil.
func sidecarOf(pod *corev1.Pod) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == sidecarName {
				return &list[i]
			}
		}
	}
	return nil
}

// addressOf returns the base URL of the pod's sidecar, and its token. The token is
// empty if LASTCALL_TOKEN is not set to a literal value.
func addressOf(pod *corev1.Pod) (address, token string, err error) {
	c := sidecarOf(pod)
	if c == nil {
		return "", "", fmt.Errorf("the pod has no container %s", sidecarName)
	}
	if pod.Status.PodIP == "" {
		return "", "", fmt.Errorf("the pod has no address")
	}
	port := strconv.Itoa(defaultPort)
	for _, p := range c.Ports {
		if p.Name == sidecarName {
			port = strconv.Itoa(int(p.ContainerPort))
		}
	}
	for _, v := range c.Env {
		switch v.Name {
		case "LASTCALL_LISTEN":
			if p := v.Value[strings.LastIndex(v.Value, ":")+1:]; p != "" {
				port = p
			}
		case "LASTCALL_TOKEN":
			token = v.Value
		}
	}
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(pod.Status.PodIP, port)}
	return u.String(), token, nil
}

// timeout returns how long the gate holds the pod at most, and whether it releases the
// pod then. A limit of 0 means no limit. The error is about an invalid annotation; the
// other results are then the ones to use.
func timeout(pod *corev1.Pod) (limit time.Duration, release bool, err error) {
	if text, ok := pod.Annotations[Timeout]; ok {
		limit, err = time.ParseDuration(text)
		if err != nil || limit <= 0 {
			return 0, false, fmt.Errorf("annotation %s is %.50q: must be a duration above 0, such as 10m; the gate waits as long as it takes", Timeout, text)
		}
	}
	switch text := pod.Annotations[OnTimeout]; text {
	case "", "hold":
		return limit, false, nil
	case "release":
		return limit, true, nil
	default:
		return limit, false, fmt.Errorf("annotation %s is %.50q: must be hold or release; the gate holds", OnTimeout, text)
	}
}

// isActive reports whether the pod runs or will run, by the rule that Kubernetes'
// controllers use.
func isActive(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

func isReady(pod *corev1.Pod) bool {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// slim removes everything from a pod that the gate does not need, because the cache
// may hold ten thousand pods.
func slim(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	out := &corev1.Pod{TypeMeta: pod.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
		Labels: pod.Labels, OwnerReferences: pod.OwnerReferences, DeletionTimestamp: pod.DeletionTimestamp,
	}}
	for key, value := range pod.Annotations {
		if strings.HasPrefix(key, "lastcall/") || key == mirror {
			metav1.SetMetaDataAnnotation(&out.ObjectMeta, key, value)
		}
	}
	if c := sidecarOf(pod); c != nil {
		kept := corev1.Container{Name: c.Name, Ports: c.Ports}
		for _, v := range c.Env {
			if v.Name == "LASTCALL_LISTEN" || v.Name == "LASTCALL_TOKEN" {
				kept.Env = append(kept.Env, v)
			}
		}
		out.Spec.Containers = []corev1.Container{kept}
	}
	out.Status.Phase, out.Status.PodIP = pod.Status.Phase, pod.Status.PodIP
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			out.Status.Conditions = []corev1.PodCondition{c}
		}
	}
	return out, nil
}
