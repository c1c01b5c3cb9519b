package gate_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"lastcall/admission/gate"
	"lastcall/admission/internal/apiservertest"
)

// cluster is a real API server with the gate's webhook configuration and RBAC rules
// of deploy/admission. The test acts as the kubelet.
type cluster struct {
	*apiservertest.Server
	admin *kubernetes.Clientset
	asked atomic.Int64 // number of reviews
}

func startCluster(t *testing.T, version apiservertest.Version) *cluster {
	c := &cluster{Server: apiservertest.Start(t, version)}
	var client *kubernetes.Clientset
	c.admin, client = c.Clients(t)
	for _, namespace := range []string{"team", "lastcall-system"} {
		c.Namespace(t, namespace)
	}
	label := []byte(`{"metadata":{"labels":{"lastcall/gate":"true"}}}`)
	if _, err := c.admin.CoreV1().Namespaces().Patch(t.Context(), "team", types.MergePatchType, label, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	g := gate.New(gate.Config{
		Client: client, Own: own, Never: []string{"kube-system", "lastcall-system"},
		Hold: 10 * time.Second, Gone: time.Hour, Events: record.NewFakeRecorder(10000), Log: log,
	})
	c.Apply(t, "../../deploy/admission/server/rbac.yaml", "", nil)
	c.Apply(t, "../../deploy/admission/gate/rbac.yaml", "", nil)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	eventually(t, "the gate knows all pods", g.Synced)

	server := httptest.NewTLSServer(c.counting(g.Webhook(ctx)))
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	c.Apply(t, "../../deploy/admission/gate/webhook.yaml", server.URL, ca)
	// The API server receives the configuration some moments later.
	n := 0
	eventually(t, "the webhook is asked", func() bool {
		n++
		name := fmt.Sprintf("first-%d", n)
		c.run(t, newSidecar(t), name, nil)
		_ = c.admin.CoreV1().Pods("team").EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "team"}})
		return c.asked.Load() > 0
	})
	return c
}

// counting counts the reviews.
func (c *cluster) counting(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.asked.Add(1)
		h.ServeHTTP(w, r)
	})
}

// run creates a pod with the status of one that a kubelet has started.
func (c *cluster) run(t *testing.T, sidecar *fakeSidecar, name string, change func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	pod := sidecar.at(t, running(name))
	pod.UID, pod.ResourceVersion, pod.Spec.NodeName = "", "", "node"
	pod.Spec.InitContainers[0].Image, pod.Spec.Containers[0].Image = "lastcall", "app"
	no := false
	pod.Spec.AutomountServiceAccountToken = &no
	status := pod.Status
	if change != nil {
		change(pod)
	}
	pods := c.admin.CoreV1().Pods("team")
	created, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	if err == nil {
		created.Status = status
		created, err = pods.UpdateStatus(t.Context(), created, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func (c *cluster) pod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pod, err := c.admin.CoreV1().Pods("team").Get(t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func (c *cluster) deletes(t *testing.T, name string, o metav1.DeleteOptions) error {
	return c.admin.CoreV1().Pods("team").Delete(t.Context(), name, o)
}

func (c *cluster) evicts(t *testing.T, name string) error {
	return c.admin.CoreV1().Pods("team").EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "team"}})
}
