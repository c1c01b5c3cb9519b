package apiservertest

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// TestManifests creates the objects of deploy/admission and deploy/policy on real API
// servers with strict validation, except for custom resources. It also creates a pod
// of the Deployment in its namespace, whose Pod Security level is restricted.
func TestManifests(t *testing.T) {
	const admission = "../../../deploy/admission/"
	files := []string{admission + "common/namespace.yaml"}
	for _, pattern := range []string{
		admission + "common/parameters.yaml", admission + "server/*.yaml", admission + "gate/*.yaml", admission + "check/*.yaml",
		admission + "inject/*.yaml", "../../../deploy/policy/v1/*.yaml",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		files = append(files, found...)
	}
	for _, version := range Versions() {
		t.Run(version.Name, func(t *testing.T) {
			s := Start(t, version)
			var pod map[string]any
			for _, file := range files {
				if filepath.Base(file) == "kustomization.yaml" {
					continue
				}
				for _, object := range readManifest(t, file) {
					if kind, _ := object["kind"].(string); strings.HasPrefix(kind, "MutatingAdmissionPolicy") {
						object["apiVersion"] = "admissionregistration.k8s.io/" + version.Policies
					} else if kind == "Deployment" {
						pod = podOf(object)
					}
					s.takes(t, object)
				}
			}
			s.takes(t, pod)
		})
	}
}

// takes creates an object. An unknown field or a warning fails the test.
func (s *Server) takes(t *testing.T, object map[string]any) {
	t.Helper()
	metadata, _ := object["metadata"].(map[string]any)
	reply, err := s.Do(t.Context(), http.MethodPost, collection(object, metadata)+"?fieldValidation=Strict", object)
	if err != nil || len(reply.Warnings) > 0 {
		t.Errorf("%s %s: %v %q", object["kind"], metadata["name"], err, reply.Warnings)
	}
}

// podOf returns a pod of a Deployment.
func podOf(deployment map[string]any) map[string]any {
	spec, _ := deployment["spec"].(map[string]any)
	template, _ := spec["template"].(map[string]any)
	metadata, _ := template["metadata"].(map[string]any)
	return map[string]any{
		"apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
		"metadata": map[string]any{"name": "lastcall-admission", "namespace": "lastcall-system", "labels": metadata["labels"]},
	}
}
