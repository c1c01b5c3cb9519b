package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The names in deploy/admission.
const (
	systemNamespace = "lastcall-system"
	admissionName   = "lastcall-admission"
)

// injectedBy is a label of namespaces. Its value selects how pods get their sidecar.
// Namespaces without it, such as those of other scenarios, are not affected.
const injectedBy = "lastcall-e2e/injected-by"

func admissionImage() string {
	return cmp.Or(os.Getenv("E2E_ADMISSION_IMAGE"), "localhost/lastcall-admission:e2e")
}

// The scenarios of the cluster side, which is installed once for all of them from
// deploy/. Other scenarios run at the same time.
func TestAdmission(t *testing.T) {
	t.Parallel()
	system := installAdmission(t)
	// This one runs before the others, because they need the gate.
	t.Run("killed", system.gateIsKilled)
	// The longest scenario runs beside the others, which run one after another.
	// Parallel subtests would wait for all tests that have begun to wait before.
	var longest sync.WaitGroup
	longest.Go(func() {
		t.Run("StatefulSet", func(t *testing.T) { startFor(t, patience).gatedStatefulSet(gated) })
	})
	t.Run("Deployment", func(t *testing.T) { startFor(t, patience).gatedDeployment(gated) })
	t.Run("etcd", func(t *testing.T) { startFor(t, patience).etcdRestart(gated) })
	t.Run("pods that never drain", podsThatNeverDrain)
	t.Run("warns", kubectlWarns)
	longest.Wait()
	t.Run("injected", func(t *testing.T) { each(t, []variant{byPolicy, byWebhook, bare}, (*scenario).injected) })
}

// admission is the cluster side in the namespace lastcall-system, installed from
// deploy/.
type admission struct{ *scenario }

// installAdmission applies deploy/ and waits until all replicas are ready. The cluster
// side is removed at the end of the test.
func installAdmission(t *testing.T) *admission {
	t.Helper()
	s := connect(t, groupPatience)
	s.namespace = systemNamespace
	s.pods = watchPods(s.ctx, s.client, s.namespace, admissionName)
	manifests := s.admissionManifests()
	s.eventually("what was there before is gone", func(ctx context.Context) (bool, error) {
		namespace, err := s.client.CoreV1().Namespaces().Get(ctx, s.namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return err == nil && namespace.DeletionTimestamp == nil, err
	})
	began := time.Now()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), stepPatience)
		defer cancel()
		if t.Failed() {
			t.Log(s.evidence(ctx))
		}
		remove := exec.CommandContext(ctx, "kubectl", "delete", "--ignore-not-found", "--wait=false", "-f", "-")
		remove.Stdin = bytes.NewReader(manifests)
		if out, err := remove.CombinedOutput(); err != nil {
			t.Errorf("removing the cluster's side: %v\n%s", err, out)
		}
	})
	s.kubectl(manifests, "apply", "--validate=strict", "-f", "-")
	a := &admission{s}
	a.has(2, nil)
	s.Logf("the cluster's side was ready after %.1f s", time.Since(began).Seconds())
	return a
}

// admissionManifests returns the manifests of the whole cluster side: injection by
// policy and by webhook, the check, and the gate. Injection and check apply only to
// namespaces with the label injectedBy.
func (s *scenario) admissionManifests() []byte {
	s.Helper()
	dir := s.TempDir()
	deploy, err := filepath.Abs(deployments)
	if err == nil {
		deploy, err = filepath.Rel(dir, deploy)
	}
	s.must("looking for the manifests", err)
	only := func(path, operator, values string) string {
		return fmt.Sprintf(`'[{"op": "add", "path": "%s/namespaceSelector/matchExpressions/-", "value": {"key": %q, "operator": %q%s}}]'`, path, injectedBy, operator, values)
	}
	text := fmt.Sprintf(`
resources: [%[1]s/policy/%[2]s, %[1]s/admission/server]
components: [%[1]s/admission/inject, %[1]s/admission/check, %[1]s/admission/gate]
images: [%[3]s]
patches:
  - target: {kind: ConfigMap, name: lastcall-injection}
    patch: '[{"op": "replace", "path": "/data", "value": {"image": %[4]q, "LASTCALL_DRAINING_FILE": %[5]q}}]'
  - target: {kind: MutatingAdmissionPolicy, name: lastcall-inject}
    patch: %[6]s
  - target: {kind: MutatingWebhookConfiguration, name: lastcall-inject}
    patch: %[7]s
  - target: {kind: ValidatingWebhookConfiguration, name: lastcall-check}
    patch: %[8]s
`, deploy, s.policyVersion(), kustomizeImage("registry.example.com/lastcall-admission", admissionImage()),
		lastcallImage(), drainingFile,
		only("/spec/matchConstraints", "In", `, "values": ["policy"]`),
		only("/webhooks/0", "In", `, "values": ["webhook"]`),
		only("/webhooks/0", "Exists", ""))
	s.must("writing a kustomization", os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600))
	return s.kubectl(nil, "kustomize", dir)
}

// policyVersion returns the folder of deploy/policy for the API version that the API
// server serves.
func (s *scenario) policyVersion() string {
	s.Helper()
	for _, version := range []string{"v1", "v1beta1"} {
		list, err := s.client.Discovery().ServerResourcesForGroupVersion("admissionregistration.k8s.io/" + version)
		if err != nil {
			continue
		}
		for _, resource := range list.APIResources {
			if resource.Name == "mutatingadmissionpolicies" {
				return version
			}
		}
	}
	s.Fatal("the API server has no MutatingAdmissionPolicy: docs/admission.md says how it is switched on")
	return ""
}

// has waits until there are exactly n replicas, all of them ready and none in old.
func (a *admission) has(n int, old map[types.UID]bool) {
	a.Helper()
	a.waitForPods(fmt.Sprintf("%d replicas are ready", n), func(pods []*corev1.Pod) bool {
		for _, p := range pods {
			if old[p.UID] || !isReady(p) || p.DeletionTimestamp != nil {
				return false
			}
		}
		return len(pods) == n
	})
}

// setLabel labels the scenario's namespace.
func (s *scenario) setLabel(key, value string) {
	s.Helper()
	_, err := s.client.CoreV1().Namespaces().Patch(s.ctx, s.namespace, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata": {"labels": {%q: %q}}}`, key, value), metav1.PatchOptions{})
	s.must("labelling the namespace", err)
}

// injected restarts a Deployment under load. Its pods have nothing but the label for
// the injection; in the variant bare, they do not have the label either.
func (s *scenario) injected(v variant) {
	s.Helper()
	web := app{name: "web", replicas: 4, variant: v, flags: exitsAtOnce()}
	if v.injected() {
		s.injects(web)
	}
	s.judge(v, s.rollingRestart("rolling restart of 4 replicas, whose pods have nothing but a label, and a grace period of 30 s; the app exits at SIGTERM", web,
		"-patience", "15s")) // a request to a deleted pod gets no answer
	for _, end := range s.pods.terminations(web.name) {
		if hasSidecar(end.pod) != v.injected() {
			s.Errorf("%s has a sidecar: %v, want %v", end.pod.Name, hasSidecar(end.pod), v.injected())
		}
	}
}

// kubectlWarns tests that kubectl apply with a server-side dry run prints a mistake in
// a Deployment and its fix, and does not fail.
func kubectlWarns(t *testing.T) {
	s := startFor(t, patience)
	web := app{name: "web", replicas: 1, variant: byWebhook}
	s.injects(web)
	spec := web.podSpec()
	spec.TerminationGracePeriodSeconds = new(int64(0)) // no hook runs
	manifest, err := json.Marshal(&appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Name: web.name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": web.name}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: web.labels()}, Spec: spec},
		},
	})
	s.must("writing a Deployment", err)
	// If the webhook does not answer in time, the API server ignores it. So the
	// command is repeated.
	s.eventually("kubectl prints the warning", func(ctx context.Context) (bool, error) {
		apply := exec.CommandContext(ctx, "kubectl", "apply", "--dry-run=server", "--namespace", s.namespace, "-f", "-")
		apply.Stdin = bytes.NewReader(manifest)
		out, err := apply.CombinedOutput()
		if err != nil {
			return false, fmt.Errorf("%w: %s", err, out)
		}
		return warning.Match(out) && bytes.Contains(out, []byte("deployment.apps/web created")), fmt.Errorf("it prints %s", out)
	})
}

// warning matches a warning that kubectl prints: a rule of the check, and the fix.
var warning = regexp.MustCompile(`(?m)^Warning: lastcall: grace-period-zero: terminationGracePeriodSeconds: 30`)

// injects enables the injection in the scenario's namespace, and waits until it works.
// It must succeed several times in a row, because kube-proxy may still send calls to
// deleted replicas of the webhook.
func (s *scenario) injects(a app) {
	s.Helper()
	s.setLabel(injectedBy, map[variant]string{byPolicy: "policy", byWebhook: "webhook"}[a.variant])
	const enough = 10
	row := 0
	s.eventually("pods with the label get a sidecar", func(ctx context.Context) (bool, error) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "tried", Labels: a.labels()}, Spec: a.podSpec()}
		created, err := s.client.CoreV1().Pods(s.namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			row = 0
			return false, err
		}
		if row++; !hasSidecar(created) {
			row = 0
		}
		return row == enough, errors.New("it has none")
	})
}

// hasSidecar reports whether a pod has a native sidecar.
func hasSidecar(pod *corev1.Pod) bool {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == sidecarName && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			return true
		}
	}
	return false
}
