package gate_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lastcall/admission/gate"
	"lastcall/admission/internal/apiservertest"
)

// TestStatefulSet makes the real StatefulSet controller roll out and scale down an
// OrderedReady StatefulSet of 3 replicas. Its pods are not ready while they drain, and
// the controller never repeats the deletion of such pods.
func TestStatefulSet(t *testing.T) {
	c := startCluster(t, apiservertest.Versions()[0])
	k := startKubelet(t, c)
	c.Controllers(t, "statefulset-controller")
	sets := c.admin.AppsV1().StatefulSets("team")
	three := int32(3)
	template := corev1.PodTemplateSpec{Spec: *running("x").Spec.DeepCopy()}
	template.Labels = map[string]string{"app": "set", gate.Label: "true"}
	template.Spec.NodeName = "node"
	template.Spec.InitContainers[0].Image, template.Spec.Containers[0].Image = "lastcall", "app"
	template.Spec.InitContainers[0].Ports = []corev1.ContainerPort{{Name: "lastcall", ContainerPort: k.port}}
	no := false
	template.Spec.AutomountServiceAccountToken = &no
	_, err := sets.Create(t.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "set"}, Spec: appsv1.StatefulSetSpec{
		Replicas: &three, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "set"}}, Template: template, ServiceName: "set",
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	status := func() appsv1.StatefulSetStatus {
		set, err := sets.Get(t.Context(), "set", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if set.Status.ObservedGeneration != set.Generation {
			return appsv1.StatefulSetStatus{}
		}
		return set.Status
	}
	eventually(t, "three pods are ready", func() bool { return status().ReadyReplicas == 3 })
	patch := func(text string) {
		if _, err := sets.Patch(t.Context(), "set", types.MergePatchType, []byte(text), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	patch(`{"spec":{"template":{"metadata":{"annotations":{"rolled":"yes"}}}}}`)
	eventually(t, "it is rolled", func() bool {
		s := status()
		return s.UpdatedReplicas == 3 && s.ReadyReplicas == 3 && s.CurrentRevision == s.UpdateRevision
	})
	if n := k.drained(); n != 3 {
		t.Errorf("%d pods were drained for the rollout", n)
	}
	t.Logf("rolled in %s, with drains of %s each", time.Since(began), k.work)
	patch(`{"spec":{"replicas":1}}`)
	eventually(t, "it is scaled down", func() bool { return status().Replicas == 1 })
	if n := k.drained(); n != 5 {
		t.Errorf("%d pods were drained in all, want 5", n)
	}
}

// kubelet acts as the kubelet and as the sidecars of all pods. Each pod has its own
// address, and all sidecars have the same port.
type kubelet struct {
	port int32
	work time.Duration // duration of each drain

	mu    sync.Mutex // guards everything that follows
	next  int
	pods  map[types.UID]string // addresses
	phase map[string]string    // by address
	ended int
}

func startKubelet(t *testing.T, c *cluster) *kubelet {
	k := &kubelet{work: 2 * time.Second, next: 2, pods: map[types.UID]string{}, phase: map[string]string{}}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: k, ReadHeaderTimeout: time.Minute}}
	server.Start()
	t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	k.port = int32(n)
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				k.look(t, c)
			}
		}
	})
	t.Cleanup(func() { close(done); running.Wait() })
	return k
}

// drained returns the number of pods that have been removed.
func (k *kubelet) drained() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ended
}

func (k *kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	ip := local.IP.String()
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.Method == http.MethodPost {
		w.WriteHeader(http.StatusAccepted)
		if k.phase[ip] == "serving" {
			k.phase[ip] = "draining"
			time.AfterFunc(k.work, func() {
				k.mu.Lock()
				defer k.mu.Unlock()
				k.phase[ip] = "drained"
			})
		}
	}
	fmt.Fprintf(w, `{"phase":%q}`, k.phase[ip])
}

// look calls keep for each pod of the StatefulSet.
func (k *kubelet) look(t *testing.T, c *cluster) {
	pods, err := c.admin.CoreV1().Pods("team").List(t.Context(), metav1.ListOptions{LabelSelector: "app=set"})
	if err != nil {
		return // the end of the test
	}
	for i := range pods.Items {
		if err := k.keep(t, c, &pods.Items[i]); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && t.Context().Err() == nil {
			t.Error(err)
		}
	}
}

func (k *kubelet) keep(t *testing.T, c *cluster, pod *corev1.Pod) error {
	k.mu.Lock()
	ip, known := k.pods[pod.UID]
	if !known {
		ip = fmt.Sprintf("127.0.0.%d", k.next)
		k.next++
		k.pods[pod.UID], k.phase[ip] = ip, "serving"
	}
	phase := k.phase[ip]
	k.mu.Unlock()
	if pod.DeletionTimestamp != nil {
		if phase != "drained" {
			t.Errorf("%s is deleted while its sidecar is %s", pod.Name, phase)
		}
		zero := int64(0)
		err := c.deletes(t, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
		if err == nil {
			k.mu.Lock()
			k.ended++
			k.mu.Unlock()
		}
		return err
	}
	ready := corev1.ConditionTrue
	if phase != "serving" {
		ready = corev1.ConditionFalse
	}
	if pod.Status.Phase == corev1.PodRunning && isReady(pod) == (ready == corev1.ConditionTrue) {
		return nil
	}
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()}}
	_, err := c.admin.CoreV1().Pods("team").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
	return err
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
