package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// patience bounds a whole scenario, and stepPatience each of its waits. That is
// much, for machines that are busy with other things; and Eureka's server may
// answer for 3 minutes as if an instance were still there.
//
// groupPatience bounds scenarios that share what one of them installs, and that
// wait for others.
const (
	patience      = 15 * time.Minute
	stepPatience  = 5 * time.Minute
	groupPatience = 40 * time.Minute
)

// scenario is one test in a namespace of its own, in which Pod Security
// "restricted" is enforced. All of its calls fail the test on an error.
type scenario struct {
	*testing.T
	ctx       context.Context
	client    *kubernetes.Clientset
	namespace string
	pods      *podWatch
	// held is true if the gate may hold its pods.
	held bool
}

// start begins a scenario, which runs besides others. Its namespace goes with
// the test.
func start(t *testing.T) *scenario {
	t.Helper()
	t.Parallel()
	return startFor(t, patience)
}

// each runs a scenario for each variant, side by side.
func each(t *testing.T, variants []variant, run func(*scenario, variant)) {
	t.Helper()
	t.Parallel()
	for _, v := range variants {
		t.Run(string(v), func(t *testing.T) { run(start(t), v) })
	}
}

// startFor begins a scenario with a bound of its own, which runs alone.
func startFor(t *testing.T, patience time.Duration) *scenario {
	t.Helper()
	s := connect(t, patience)
	s.namespace = s.createNamespace()
	s.pods = watchPods(s.ctx, s.client, s.namespace, sidecarName)
	results.ranOn(s.where())
	began := time.Now()
	t.Cleanup(func() {
		s.remove()
		outcome := "ok  "
		if t.Failed() {
			outcome = "FAIL"
		}
		fmt.Printf("%s %s, %.0f s\n", outcome, t.Name(), time.Since(began).Seconds())
	})
	return s
}

// connect returns a scenario that has no namespace yet.
func connect(t *testing.T, patience time.Duration) *scenario {
	t.Helper()
	if os.Getenv("KUBECONFIG") == "" {
		t.Fatal("KUBECONFIG names no cluster: `make e2e` brings one up")
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	if err != nil {
		t.Fatalf("KUBECONFIG: %v", err)
	}
	config.QPS, config.Burst = 100, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatalf("KUBECONFIG: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return &scenario{T: t, ctx: ctx, client: client}
}

func (s *scenario) createNamespace() string {
	s.Helper()
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(strings.TrimPrefix(s.Name(), "Test")), "-")
	namespace, err := s.client.CoreV1().Namespaces().Create(s.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: name[:min(len(name), 40)] + "-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"},
	}}, metav1.CreateOptions{})
	s.must("creating a namespace", err)
	// Without it the API server refuses pods. A controller makes it.
	s.eventually("the namespace has its service account", func(ctx context.Context) (bool, error) {
		_, err := s.client.CoreV1().ServiceAccounts(namespace.Name).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, err
	})
	return namespace.Name
}

// remove deletes the namespace, after it has told what there was to see in it
// if the test has failed.
func (s *scenario) remove() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 30*time.Second)
	defer cancel()
	if s.Failed() {
		s.Log(s.evidence(ctx))
	}
	// Pods would go on to drain for as long as their grace period. Those that the
	// gate holds go with their namespace only.
	soon := int64(1)
	if s.held {
		s.Logf("the gate may hold pods of %s", s.namespace)
	} else if err := s.client.CoreV1().Pods(s.namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &soon}, metav1.ListOptions{}); err != nil {
		s.Logf("deleting the pods of %s: %v", s.namespace, err)
	}
	if err := s.client.CoreV1().Namespaces().Delete(ctx, s.namespace, metav1.DeleteOptions{}); err != nil {
		s.Logf("deleting namespace %s: %v", s.namespace, err)
	}
}

// evidence is what helps to find out why a scenario has failed.
func (s *scenario) evidence(ctx context.Context) string {
	var out bytes.Buffer
	fmt.Fprintf(&out, "--- pods of %s\n", s.namespace)
	for _, p := range s.pods.now() {
		fmt.Fprintf(&out, "%s %s ready=%v deleted=%v\n", p.Name, p.Status.Phase, isReady(p), p.DeletionTimestamp)
		for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if state, err := json.Marshal(c.State); err == nil {
				fmt.Fprintf(&out, "  %s ready=%v restarts=%d %s\n", c.Name, c.Ready, c.RestartCount, state)
			}
		}
	}
	for _, p := range s.pods.now() {
		status, err := s.client.CoreV1().RESTClient().Get().Namespace(s.namespace).Resource("pods").
			Name(fmt.Sprintf("%s:%d", p.Name, sidecarPort)).SubResource("proxy").Suffix("/status").DoRaw(ctx)
		if err == nil { // it has a sidecar
			fmt.Fprintf(&out, "--- status of %s\n%s\n", p.Name, status)
		}
	}
	fmt.Fprintln(&out, "--- events")
	if events, err := s.client.CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{Limit: 500}); err != nil {
		fmt.Fprintln(&out, err)
	} else {
		for _, e := range events.Items {
			if e.Type != corev1.EventTypeNormal || e.Source.Component != "kubelet" {
				fmt.Fprintf(&out, "%s %s %s %s: %s\n", e.LastTimestamp.Format(time.TimeOnly), e.Type, e.InvolvedObject.Name, e.Reason, e.Message)
			}
		}
	}
	for pod, log := range s.pods.logs() {
		fmt.Fprintf(&out, "--- %s\n%s\n", pod, lastLines(log, 25))
	}
	return out.String()
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// where tells what the scenarios run on.
func (s *scenario) where() string {
	s.Helper()
	nodes, err := s.client.CoreV1().Nodes().List(s.ctx, metav1.ListOptions{})
	s.must("asking for the nodes", err)
	if len(nodes.Items) == 0 {
		s.Fatal("the cluster has no node")
	}
	node := nodes.Items[0].Status
	commit := "?"
	if out, err := exec.CommandContext(s.ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	return fmt.Sprintf("Run on %s at commit %s: Kubernetes %s, %s, Linux %s %s, %d node(s) of %s processors.", time.Now().Format(time.DateOnly), commit,
		node.NodeInfo.KubeletVersion, node.NodeInfo.ContainerRuntimeVersion, node.NodeInfo.KernelVersion, node.NodeInfo.Architecture, len(nodes.Items), node.Capacity.Cpu())
}

// must fails the test if err is not nil; doing tells what was being done.
func (s *scenario) must(doing string, err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", doing, err)
	}
}

// eventually asks every 200 ms until done, or stepPatience is over. It is for
// what nothing tells; for pods there is waitForPods.
func (s *scenario) eventually(what string, done func(ctx context.Context) (bool, error)) {
	s.Helper()
	s.within(stepPatience, what, done)
}

// within is eventually with a bound of its own.
func (s *scenario) within(limit time.Duration, what string, done func(ctx context.Context) (bool, error)) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, limit)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	var last error
	for {
		ok, err := done(ctx)
		if ok {
			return
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			s.Fatalf("%s: not within %v (%v)", what, limit, last)
		}
	}
}

// waitForPods waits until done says so of all pods of the namespace, or
// stepPatience is over.
func (s *scenario) waitForPods(what string, done func([]*corev1.Pod) bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, stepPatience)
	defer cancel()
	if err := s.pods.wait(ctx, done); err != nil {
		s.Fatalf("%s: not within %v", what, stepPatience)
	}
}

// get asks a pod's port, by way of the API server, so that it works for any
// cluster.
func (s *scenario) get(pod string, port int, path string) ([]byte, error) {
	return s.proxy("GET", pod, port, path)
}

func (s *scenario) post(pod string, port int, path string) ([]byte, error) {
	return s.proxy("POST", pod, port, path)
}

func (s *scenario) proxy(verb, pod string, port int, path string) ([]byte, error) {
	path, query, _ := strings.Cut(path, "?")
	request := s.client.CoreV1().RESTClient().Verb(verb).Namespace(s.namespace).Resource("pods").
		Name(fmt.Sprintf("%s:%d", pod, port)).SubResource("proxy").Suffix(path)
	for name, value, found := strings.Cut(query, "="); found; name, value, found = "", "", false {
		request = request.Param(name, value)
	}
	return request.DoRaw(s.ctx)
}

// restartedAt is the patch that `kubectl rollout restart` makes.
func restartedAt(now time.Time) (types.PatchType, []byte) {
	return types.StrategicMergePatchType, fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, now.Format(time.RFC3339Nano))
}

// ofReplicas is a patch that sets the number of replicas. An update would be
// refused where a controller has written the status meanwhile.
func ofReplicas(n int) (types.PatchType, []byte) {
	return types.StrategicMergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n)
}
