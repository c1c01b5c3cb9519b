package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"lastcall/admission/gate"
	"lastcall/admission/internal/apiservertest"
)

// The number of draining pods, and the interval between the ends of their drains.
const drainingPods, endsEvery = 100, 100 * time.Millisecond

// sidecar acts as the sidecar of a pod that is held.
type sidecar struct {
	pod    *corev1.Pod
	server *httptest.Server

	mu      sync.Mutex
	asked   chan struct{} // closed when it is first asked to drain
	drained time.Time     // zero while it drains
}

func (s *sidecar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	phase := "serving"
	if r.Method == http.MethodPost {
		select {
		case <-s.asked:
		default:
			close(s.asked)
		}
		w.WriteHeader(http.StatusAccepted)
	}
	select {
	case <-s.asked:
		phase = "draining"
	default:
	}
	if !s.drained.IsZero() {
		phase = "drained"
	}
	fmt.Fprintf(w, `{"phase":%q}`, phase)
}

// fromDrained returns the sorted times from the end of a sidecar's drain to the gate's
// deletion or eviction of the pod.
func fromDrained(b *testing.B, s *apiservertest.Server) (took []time.Duration) {
	b.Helper()
	admin, _ := s.Clients(b)
	ctx, cancel := context.WithTimeout(b.Context(), 3*time.Minute)
	defer cancel()
	sidecars := map[types.UID]*sidecar{}
	for i := range drainingPods {
		one := hold(ctx, b, admin, i)
		sidecars[one.pod.UID] = one
	}
	watch, err := admin.CoreV1().Pods("team").Watch(ctx, metav1.ListOptions{LabelSelector: "app=drains", ResourceVersion: "0"})
	if err != nil {
		b.Fatal(err)
	}
	defer watch.Stop()
	go func() {
		tick := time.NewTicker(endsEvery)
		defer tick.Stop()
		for _, one := range sidecars {
			select {
			case <-one.asked:
			case <-ctx.Done():
				return
			}
			<-tick.C
			one.mu.Lock()
			one.drained = time.Now()
			one.mu.Unlock()
		}
	}()
	deleted := map[types.UID]bool{}
	for len(deleted) < len(sidecars) {
		select {
		case event, open := <-watch.ResultChan():
			pod, ok := event.Object.(*corev1.Pod)
			if !open || !ok {
				b.Fatalf("watching pods: %v %v", open, event.Object)
			}
			one := sidecars[pod.UID]
			if one == nil || pod.DeletionTimestamp == nil || deleted[pod.UID] {
				continue
			}
			deleted[pod.UID] = true
			one.mu.Lock()
			if one.drained.IsZero() {
				b.Errorf("%s was deleted before it had drained", pod.Name)
			}
			took = append(took, time.Since(one.drained))
			one.mu.Unlock()
		case <-ctx.Done():
			b.Fatalf("%d of %d pods were deleted", len(deleted), len(sidecars))
		}
	}
	slices.Sort(took)
	return took
}

// hold creates a running pod and records a request to delete or evict it, as the
// gate's webhook does.
func hold(ctx context.Context, b *testing.B, admin *kubernetes.Clientset, i int) *sidecar {
	b.Helper()
	one := &sidecar{asked: make(chan struct{})}
	one.server = httptest.NewServer(one)
	b.Cleanup(one.server.Close)
	host, text, err := net.SplitHostPort(one.server.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	port, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		b.Fatal(err)
	}
	grace := int64(30)
	pods := admin.CoreV1().Pods("team")
	pod, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("drains-%d", i), Labels: map[string]string{"app": "drains", gate.Label: "true"}},
		Spec: corev1.PodSpec{
			NodeName: "node-1", AutomountServiceAccountToken: new(bool), TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{
				{Name: "app", Image: "app"},
				{Name: "lastcall", Image: "lastcall", Ports: []corev1.ContainerPort{{Name: "lastcall", ContainerPort: int32(port)}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: host, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	if pod, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
		b.Fatal(err)
	}
	request := gate.Request{UID: pod.UID, Verb: gate.Delete, By: []string{"someone"}, At: time.Now().UTC()}
	if i%2 == 1 {
		request.Verb = gate.Evict
	}
	recorded, err := json.Marshal(request)
	if err != nil {
		b.Fatal(err)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{gate.Recorded: string(recorded)}}})
	if err != nil {
		b.Fatal(err)
	}
	if one.pod, err = pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		b.Fatal(err)
	}
	return one
}
