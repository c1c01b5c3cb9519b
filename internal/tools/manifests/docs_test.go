package manifests

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// block returns the YAML block of a page that contains text.
func block(t *testing.T, file, text string) string {
	t.Helper()
	for _, found := range yamlBlock.FindAllStringSubmatch(string(readFile(t, deploy+"/"+file)), -1) {
		if strings.Contains(found[1], text) {
			return found[1]
		}
	}
	t.Fatalf("%s has no YAML with %q", file, text)
	return ""
}

// The examples in the docs work as they are.
func TestKustomizeDocs(t *testing.T) {
	shown := block(t, "README.md", "components:") + block(t, "README.md", "patches:")
	address := regexp.MustCompile(`- https://\S+/deploy/kustomize/(\w+)\?ref=\S+`)
	for _, mode := range []string{"native", "classic"} {
		text := address.ReplaceAllString(shown, "- COMPONENT")
		if mode == "classic" {
			text = strings.Replace(text, "initContainers: #", "containers: #", 1)
		}
		o := decode(t, build(t, kustomization(t, mode, map[string]string{
			"kustomization.yaml": text,
			"deployment.yaml":    strings.Replace(string(readFile(t, deploy+"/kustomize/example/deployment.yaml")), "name: web", "name: orders", 1),
		})))
		checkAll(t, o, kinds[mode])
		sidecar, _ := split(t, &o.workloads[0].template.Spec, kinds[mode])
		if !hasEnv(sidecar.Env, "LASTCALL_EUREKA_APP", "orders") {
			t.Errorf("the patch has not set the variable: %v", sidecar.Env)
		}
	}
}

func TestHelmDocs(t *testing.T) {
	charts := helmCharts(t)
	head := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector:\n    matchLabels: {app: {{ .Release.Name }}}\n"
	tight := strings.NewReplacer(
		"      initContainers:\n", "      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}\n      initContainers:\n",
		"          volumeMounts:\n", "          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}\n          volumeMounts:\n",
	)
	for file, text := range map[string]string{
		"templates/deployment.yaml": head + tight.Replace(block(t, "helm/README.md", "lastcall.initContainers")),
		"values.yaml":               "image: web\nport: 8080\n" + block(t, "helm/README.md", "gracePeriodSeconds:"),
	} {
		if err := os.WriteFile(charts+"/example/"+file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for mode, kind := range kinds {
		text, err := helm(t, "template", "shop", charts+"/example", "--set", "lastcall.mode="+mode)
		if err != nil {
			t.Fatal(err)
		}
		checkAll(t, decode(t, text), kind)
	}
}
