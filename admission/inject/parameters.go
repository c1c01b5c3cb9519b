package inject

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	corev1 "k8s.io/api/core/v1"
)

// Parameters are the settings that the cluster's operator chooses for all pods.
type Parameters struct {
	Image      string
	PullPolicy corev1.PullPolicy // empty: Kubernetes' default
	Resources  corev1.ResourceRequirements
	// Defaults are variables of the sidecar. A pod's annotations and values
	// derived from the pod's spec override them.
	Defaults map[string]string
}

// Keys of the ConfigMap, besides LASTCALL_…, CONSUL_… and those of quantities.
const (
	keyImage      = "image"
	keyPullPolicy = "imagePullPolicy"
)

// quantities returns the keys of the sidecar's resources and their defaults. There is
// no CPU limit by default: a throttled sidecar would answer late.
func quantities() map[string]string {
	return map[string]string{"cpuRequest": "10m", "memoryRequest": "16Mi", "cpuLimit": "", "memoryLimit": "32Mi"}
}

// ParseParameters parses the data of the ConfigMap lastcall-injection. The error joins
// all mistakes, each with its key and the valid values.
func ParseParameters(data map[string]string) (Parameters, error) {
	var mistakes []error
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }

	p := Parameters{Image: data[keyImage], PullPolicy: corev1.PullPolicy(data[keyPullPolicy]), Defaults: map[string]string{}}
	if p.Image == "" {
		wrong("image is not set: set it to the image of lastcall, such as registry.example.com/lastcall:1.0")
	}
	switch p.PullPolicy {
	case "", corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever:
	default:
		wrong("imagePullPolicy=%q: must be Always, IfNotPresent or Never", p.PullPolicy)
	}
	known := quantities()
	for _, key := range slices.Sorted(maps.Keys(data)) {
		_, quantity := known[key]
		switch {
		case key == keyImage, key == keyPullPolicy, quantity:
		case isVariable(key):
			p.Defaults[key] = data[key]
		default:
			wrong("%s is not a parameter: there are image, imagePullPolicy, %s, and variables of lastcall",
				key, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
	}
	if reserve, set := p.Defaults[reserveName]; set {
		if _, err := time.ParseDuration(reserve); err != nil {
			wrong("%s=%q: must be a duration such as 5s", reserveName, reserve)
		}
	}
	resources, err := parseResources(data)
	p.Resources = resources
	return p, errors.Join(append(mistakes, err)...)
}

func isVariable(key string) bool {
	return strings.HasPrefix(key, "LASTCALL_") || strings.HasPrefix(key, "CONSUL_")
}

func parseResources(data map[string]string) (corev1.ResourceRequirements, error) {
	var mistakes []error
	r := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	for key, value := range quantities() {
		if set, ok := data[key]; ok {
			value = set
		}
		if value == "" {
			continue
		}
		amount, err := resource.ParseQuantity(value)
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s=%q: must be a quantity such as 10m or 16Mi", key, value))
			continue
		}
		name := corev1.ResourceMemory
		if strings.HasPrefix(key, "cpu") {
			name = corev1.ResourceCPU
		}
		if strings.HasSuffix(key, "Request") {
			r.Requests[name] = amount
		} else {
			r.Limits[name] = amount
		}
	}
	return r, errors.Join(mistakes...)
}
