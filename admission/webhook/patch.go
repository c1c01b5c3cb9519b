package webhook

import (
	"encoding/json"
	"fmt"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
)

// diff returns the JSON Patch that makes after of before, or nil if they are the
// same. Both are written by this program: a field of a newer Kubernetes that its
// types do not know is in neither, and so stays as it is.
func diff(before, after *corev1.Pod) ([]byte, error) {
	old, err := json.Marshal(before)
	if err != nil {
		return nil, fmt.Errorf("writing the pod: %w", err)
	}
	changed, err := json.Marshal(after)
	if err != nil {
		return nil, fmt.Errorf("writing the changed pod: %w", err)
	}
	operations, err := jsonpatch.CreatePatch(old, changed)
	if err != nil {
		return nil, fmt.Errorf("comparing the pod with the changed pod: %w", err)
	}
	if len(operations) == 0 {
		return nil, nil
	}
	patch, err := json.Marshal(operations)
	if err != nil {
		return nil, fmt.Errorf("writing the patch: %w", err)
	}
	return patch, nil
}
