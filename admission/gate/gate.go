package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
)

// Config is the configuration of a Gate.
type Config struct {
	Client kubernetes.Interface
	// Own is the user name of Client.
	Own string
	// Never lists namespaces whose pods are never held.
	Never []string
	// Hold is how long a person's deletion waits for its response at most, so that
	// kubectl delete succeeds. 0 means that it does not wait.
	Hold time.Duration
	// Gone is how long a sidecar may be unreachable before its pod is released.
	Gone   time.Duration
	Events record.EventRecorder
	Log    *slog.Logger
}

// Gate is the webhook and the controller of one replica. It is safe for
// concurrent use.
type Gate struct {
	Config
	Metrics Metrics

	informer cache.SharedIndexInformer
	pods     listers.PodLister
	factory  informers.SharedInformerFactory
	queue    workqueue.TypedRateLimitingInterface[string]
	sidecars *sidecars

	recording sync.Mutex // held while other pods are checked and a request is recorded
	holds     chan struct{}

	mu       sync.Mutex // guards everything that follows
	changed  map[string]chan struct{}
	before   map[string]remembered
	learned  map[types.UID][]Ask // of users who know that the pod is being deleted
	starting map[string]started
	out      map[string]*outOfReach
	held     map[string]bool // pods whose warning about their annotations or their timeout was emitted
	left     map[string]bool // pods that may still exist, but have lost the label
}

// mostHeld limits the number of waiting calls: each of them counts against the API
// server's limit of concurrent requests.
const mostHeld = 50

type remembered struct {
	request *Request
	until   time.Time
}

// resync is the interval at which every pod is checked even without a change.
const resync = 10 * time.Minute

// New returns a Gate. It does nothing until Run is called.
func New(c Config) *Gate {
	g := &Gate{
		Config:   c,
		sidecars: newSidecars(),
		queue:    workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](pollEvery, 30*time.Second)),
		holds:    make(chan struct{}, mostHeld),
		changed:  map[string]chan struct{}{},
		before:   map[string]remembered{},
		learned:  map[types.UID][]Ask{},
		starting: map[string]started{},
		out:      map[string]*outOfReach{},
		held:     map[string]bool{},
		left:     map[string]bool{},
	}
	g.factory = informers.NewSharedInformerFactoryWithOptions(c.Client, resync,
		informers.WithTransform(slim),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = Label + "=true" }))
	pods := g.factory.Core().V1().Pods()
	g.informer, g.pods = pods.Informer(), pods.Lister()
	return g
}

// Run watches pods and carries out their recorded requests until ctx ends.
func (g *Gate) Run(ctx context.Context) error {
	handler, err := g.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    g.seen,
		UpdateFunc: func(_, now any) { g.seen(now) },
		DeleteFunc: g.gone,
	})
	if err != nil {
		return fmt.Errorf("watching pods: %w", err)
	}
	g.factory.Start(ctx.Done())
	defer g.factory.Shutdown()
	defer g.queue.ShutDown()
	if !cache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
		return nil // ctx has ended
	}
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() { g.work(ctx) })
	}
	<-ctx.Done()
	g.queue.ShutDown()
	workers.Wait()
	return nil
}

// Synced reports whether the gate has received all pods.
func (g *Gate) Synced() bool { return g.informer.HasSynced() }

func keyOf(pod *corev1.Pod) string { return pod.Namespace + "/" + pod.Name }

func (g *Gate) seen(object any) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	g.notify(keyOf(pod))
	if pod.Annotations[Recorded] != "" || pod.Annotations[Begun] != "" {
		g.queue.Add(keyOf(pod))
	}
}

func (g *Gate) gone(object any) {
	if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj
	}
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	key := keyOf(pod)
	if r := RequestOn(pod); r != nil {
		g.remember(key, r)
	}
	g.mu.Lock()
	delete(g.learned, pod.UID)
	g.mu.Unlock()
	if pod.Annotations[Begun] != "" && pod.DeletionTimestamp == nil {
		g.mu.Lock()
		g.left[key] = true
		g.mu.Unlock()
	}
	g.notify(key)
	g.queue.Add(key)
}

// remember keeps the request of a deleted pod for the time Remember.
func (g *Gate) remember(key string, r *Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for k, b := range g.before {
		if now.After(b.until) {
			delete(g.before, k)
		}
	}
	for i := range g.learned[r.UID] {
		r = r.without(&g.learned[r.UID][i])
	}
	g.before[key] = remembered{r, now.Add(Remember)}
}

// hasLearned notes that the decision tells the user that a pod is gone or is being
// deleted. The user's next request then means the pod's successor. An allowed
// eviction does not count, because the API server may still deny it.
func (g *Gate) hasLearned(a *Ask, d *Decision) {
	if a.Pod == nil {
		return
	}
	deletes := d.Allow && (d.Why == terminating || a.Verb == Delete && passes(a) == "")
	g.mu.Lock()
	defer g.mu.Unlock()
	key := keyOf(a.Pod)
	b, ok := g.before[key]
	switch {
	case ok && (d.Code == http.StatusNotFound || deletes && b.request.UID == a.Pod.UID):
		g.before[key] = remembered{b.request.without(a), b.until}
	case deletes && g.has(a.Pod):
		same := func(known Ask) bool { return known.Verb == a.Verb && known.User == a.User }
		if all := g.learned[a.Pod.UID]; len(all) < mostAskers && !slices.ContainsFunc(all, same) {
			g.learned[a.Pod.UID] = append(all, Ask{Verb: a.Verb, User: a.User})
		}
	}
}

// has reports whether the gate watches the pod with this UID, and will therefore be
// notified of its end.
func (g *Gate) has(pod *corev1.Pod) bool {
	known, err := g.pods.Pods(pod.Namespace).Get(pod.Name)
	return err == nil && known.UID == pod.UID
}

func (g *Gate) beforeOf(key string, now time.Time) *Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b, ok := g.before[key]; ok && now.Before(b.until) {
		return b.request
	}
	return nil
}

// notify wakes the goroutines that wait for a change of the pod.
func (g *Gate) notify(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := g.changed[key]; ok {
		close(c)
		delete(g.changed, key)
	}
}

// change returns a channel that is closed at the pod's next change.
func (g *Gate) change(key string) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.changed[key]
	if !ok {
		c = make(chan struct{})
		g.changed[key] = c
	}
	return c
}

func (g *Gate) work(ctx context.Context) {
	for {
		key, over := g.queue.Get()
		if over {
			return
		}
		again, err := g.reconcile(ctx, key)
		switch {
		case err != nil && !errors.Is(err, context.Canceled):
			g.Log.Warn("handling a pod failed, will retry", "pod", key, "error", err.Error())
			g.queue.AddRateLimited(key)
		case again > 0:
			g.queue.Forget(key)
			g.queue.AddAfter(key, again)
		default:
			g.queue.Forget(key)
		}
		g.queue.Done(key)
	}
}
