package manifests

import (
	"regexp"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// checkToken checks that the Secret's token is the value of the variable, and that
// each hook sends it. It returns the token. The sidecar itself has no hook.
func checkToken(t *testing.T, o objects, kind sidecarKind) string {
	t.Helper()
	var secret *corev1.Secret
	for _, object := range o.all {
		switch object := object.(type) {
		case *corev1.Secret:
			secret = object
		case *corev1.PodTemplate:
			t.Errorf("%s is applied", object.Name)
		case *corev1.ConfigMap:
			if _, ok := object.Data["LASTCALL_TOKEN"]; ok {
				t.Errorf("the token is in the ConfigMap %s", object.Name)
			}
		}
	}
	if secret == nil || len(secret.StringData["LASTCALL_TOKEN"]) < 16 {
		t.Fatalf("the Secret is %v", secret)
	}
	token := secret.StringData["LASTCALL_TOKEN"]
	for _, w := range o.workloads {
		pod := w.template.Spec
		sidecar, apps := split(t, &pod, kind)
		fromAll := slices.ContainsFunc(sidecar.EnvFrom, func(e corev1.EnvFromSource) bool { return e.SecretRef != nil && e.SecretRef.Name == secret.Name })
		fromOne := slices.ContainsFunc(sidecar.Env, func(e corev1.EnvVar) bool {
			return e.Name == "LASTCALL_TOKEN" && e.ValueFrom.SecretKeyRef.Name == secret.Name && e.ValueFrom.SecretKeyRef.Key == "LASTCALL_TOKEN"
		})
		if fromAll == fromOne {
			t.Errorf("%s: the sidecar's environment is %v, %v", w.name, sidecar.EnvFrom, sidecar.Env)
		}
		if sidecar.Lifecycle != nil {
			t.Errorf("%s: the sidecar has a hook", w.name)
		}
		for _, app := range apps {
			headers := app.Lifecycle.PreStop.HTTPGet.HTTPHeaders
			if len(headers) != 1 || headers[0].Name != "Authorization" || headers[0].Value != "Bearer "+token {
				t.Errorf("%s: the hook of %s sends %v, and the token is %s", w.name, app.Name, headers, token)
			}
		}
	}
	return token
}

// The examples in the docs work as they are.
func TestKustomizeToken(t *testing.T) {
	shown := block(t, "README.md", "kustomize/token")
	components := regexp.MustCompile(`- https://\S+/deploy/kustomize/(\S+)\?ref=\S+`)
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			text := components.ReplaceAllStringFunc(shown, func(line string) string {
				if component := components.FindStringSubmatch(line)[1]; component == "token" {
					return "- COMPONENT/../token"
				}
				return "- COMPONENT"
			})
			files := map[string]string{
				"kustomization.yaml": "resources: [web.yaml, db.yaml]\nnamePrefix: test-\n" + text,
				"web.yaml":           full["web.yaml"], "db.yaml": full["db.yaml"],
			}
			o := decode(t, build(t, kustomization(t, name, files)))
			checkAll(t, o, kind)
			if token := checkToken(t, o, kind); token != "0b9f6c1e5d8a47c2" {
				t.Errorf("the token is %s", token)
			}
		})
	}
}

func TestHelmGeneratesToken(t *testing.T) {
	charts := helmCharts(t)
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			var tokens []string
			for range 2 {
				text, err := helm(t, "template", "shop", charts+"/example", "--set", "lastcall.generateToken=true,lastcall.mode="+name)
				if err != nil {
					t.Fatal(err)
				}
				o := decode(t, text)
				checkAll(t, o, kind)
				tokens = append(tokens, checkToken(t, o, kind))
			}
			if tokens[0] == tokens[1] {
				t.Errorf("two releases have the same token %s", tokens[0])
			}
			text, err := helm(t, "template", "shop", charts+"/example", "--set", "lastcall.generateToken=true,lastcall.token=0123456789abcdef,lastcall.mode="+name)
			if err != nil {
				t.Fatal(err)
			}
			if token := checkToken(t, decode(t, text), kind); token != "0123456789abcdef" {
				t.Errorf("the token is %s, want the value's", token)
			}
		})
	}
}
