package apiservertest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// Apply creates the objects in a manifest. Webhooks are called at url, followed by
// their path, instead of through a Service.
func (s *Server) Apply(t testing.TB, file, url string, ca []byte) {
	t.Helper()
	for _, object := range readManifest(t, file) {
		callAt(object, url, ca)
		metadata, _ := object["metadata"].(map[string]any)
		s.Put(t, collection(object, metadata), fmt.Sprint(metadata["name"]), object)
	}
}

// readManifest returns the objects of a file.
func readManifest(t testing.TB, file string) (objects []map[string]any) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // opened for reading: an error does not matter
	for decoder := yaml.NewYAMLOrJSONDecoder(f, 4096); ; {
		var object map[string]any
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("reading %s: %v", file, err)
		}
		objects = append(objects, object)
	}
}

// callAt replaces the Services in a webhook configuration by url and ca.
func callAt(object map[string]any, url string, ca []byte) {
	hooks, _ := object["webhooks"].([]any)
	for _, h := range hooks {
		hook, _ := h.(map[string]any)
		config, _ := hook["clientConfig"].(map[string]any)
		service, _ := config["service"].(map[string]any)
		moved := map[string]any{"url": url + fmt.Sprint(service["path"])}
		if ca != nil {
			moved["caBundle"] = base64.StdEncoding.EncodeToString(ca)
		}
		hook["clientConfig"] = moved
	}
}

// collection returns the API path for objects of that kind.
func collection(object, metadata map[string]any) string {
	path := "/api/v1"
	if group := fmt.Sprint(object["apiVersion"]); group != "v1" {
		path = "/apis/" + group
	}
	if namespace, ok := metadata["namespace"]; ok {
		path += fmt.Sprintf("/namespaces/%s", namespace)
	}
	kind := strings.ToLower(fmt.Sprint(object["kind"]))
	if stem, ok := strings.CutSuffix(kind, "y"); ok {
		return path + "/" + stem + "ies"
	}
	return path + "/" + kind + "s"
}
