package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// podWatch watches the pods of a namespace. It records the current pods, how long each
// pod took to end, and the sidecars' logs. It is safe for concurrent use.
type podWatch struct {
	client    *kubernetes.Clientset
	namespace string
	container string // name of the container with the logs

	mu      sync.Mutex
	pods    map[types.UID]*corev1.Pod
	changed chan struct{} // closed at the next change
	deleted map[types.UID]time.Time
	gone    []termination
	log     map[string]*logBuffer // by POD/CONTAINER-ID
}

// termination describes the end of a pod.
type termination struct {
	pod  *corev1.Pod // the last known state
	took time.Duration
	at   time.Time // when it was gone
}

func watchPods(ctx context.Context, client *kubernetes.Clientset, namespace, container string) *podWatch {
	w := &podWatch{
		client: client, namespace: namespace, container: container, changed: make(chan struct{}),
		pods: map[types.UID]*corev1.Pod{}, deleted: map[types.UID]time.Time{}, log: map[string]*logBuffer{},
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	// AddEventHandler fails only if the informer has been stopped.
	_, _ = factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(pod any) { w.seen(ctx, pod) },
		UpdateFunc: func(_, pod any) { w.seen(ctx, pod) },
		DeleteFunc: w.isGone,
	})
	factory.Start(ctx.Done())
	return w
}

func (w *podWatch) seen(ctx context.Context, what any) {
	pod, ok := what.(*corev1.Pod)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pods[pod.UID] = pod
	if _, known := w.deleted[pod.UID]; !known && pod.DeletionTimestamp != nil {
		w.deleted[pod.UID] = time.Now()
	}
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if c.Name != w.container || c.State.Running == nil {
			continue
		}
		key := pod.Name + "/" + c.ContainerID
		if _, known := w.log[key]; !known {
			w.log[key] = &logBuffer{}
			go w.follow(ctx, pod, c.ContainerID, w.log[key])
		}
	}
	w.tell()
}

func (w *podWatch) isGone(what any) {
	if last, ok := what.(cache.DeletedFinalStateUnknown); ok {
		what = last.Obj
	}
	pod, ok := what.(*corev1.Pod)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pods, pod.UID)
	if began, known := w.deleted[pod.UID]; known {
		w.gone = append(w.gone, termination{pod: pod, took: time.Since(began), at: time.Now()})
	}
	w.tell()
}

// tell wakes the goroutines that wait for a change. w.mu must be held.
func (w *podWatch) tell() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// now returns the current pods, including terminating ones.
func (w *podWatch) now() []*corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	pods := make([]*corev1.Pod, 0, len(w.pods))
	for _, p := range w.pods {
		pods = append(pods, p)
	}
	return pods
}

func (w *podWatch) wait(ctx context.Context, done func([]*corev1.Pod) bool) error {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if done(w.now()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// terminations returns the terminations of all pods of an app that are gone.
func (w *podWatch) terminations(app string) []termination {
	w.mu.Lock()
	defer w.mu.Unlock()
	var of []termination
	for _, t := range w.gone {
		if t.pod.Labels["app"] == app {
			of = append(of, t)
		}
	}
	return of
}

// follow reads the log of a pod's sidecar until the container ends: later, the pod is
// gone. If the stream ends early, follow reads the log again, as long as the pod has this
// container. A restart of the kubelet ends the stream without an error.
func (w *podWatch) follow(ctx context.Context, pod *corev1.Pod, container string, into *logBuffer) {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		err := w.readLog(ctx, pod.Name, into)
		there, running := w.has(pod.UID, container)
		switch {
		case ctx.Err() != nil, err == nil && !running:
			return
		case err != nil && !there:
			fmt.Fprintln(into, "the log could not be read to its end:", err)
			return
		}
		select {
		case <-again.C:
			into.readAgain()
		case <-ctx.Done():
			return
		}
	}
}

func (w *podWatch) readLog(ctx context.Context, pod string, into io.Writer) error {
	stream, err := w.client.CoreV1().Pods(w.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: w.container, Follow: true}).Stream(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	_, err = io.Copy(into, stream)
	return err
}

// has reports whether a pod has the container with this ID, and whether it is running.
func (w *podWatch) has(pod types.UID, container string) (there, running bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, known := w.pods[pod]
	if !known {
		return false, false
	}
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if c.ContainerID == container {
			return true, c.State.Running != nil
		}
	}
	return false, false
}

// logs returns the sidecars' logs by POD/CONTAINER-ID.
func (w *podWatch) logs() map[string]string {
	w.mu.Lock()
	buffers := maps.Clone(w.log)
	w.mu.Unlock()
	logs := map[string]string{}
	for name, buffer := range buffers {
		logs[name] = buffer.String()
	}
	return logs
}

// logBuffer holds a log that may be read again from its beginning. It has no ReadFrom
// method, which io.Copy would call instead of Write.
type logBuffer struct {
	mu    sync.Mutex
	text  bytes.Buffer
	known int // number of the next bytes that are in text already
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := min(b.known, len(p))
	b.known -= known
	n, err := b.text.Write(p[known:])
	return known + n, err
}

// readAgain must be called before the log is read again from its beginning.
func (b *logBuffer) readAgain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known = b.text.Len()
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// ofApp returns the pods of an app.
func ofApp(pods []*corev1.Pod, app string) []*corev1.Pod {
	var of []*corev1.Pod
	for _, p := range pods {
		if p.Labels["app"] == app {
			of = append(of, p)
		}
	}
	return of
}

// allReady reports whether the app has exactly n pods, all of them ready and none
// terminating.
func allReady(pods []*corev1.Pod, app string, n int) bool {
	pods = ofApp(pods, app)
	for _, p := range pods {
		if !isReady(p) || p.DeletionTimestamp != nil {
			return false
		}
	}
	return len(pods) == n
}

// replaced reports whether the app has exactly n pods, all of them ready and none of them
// in old.
func replaced(pods []*corev1.Pod, app string, n int, old map[types.UID]bool) bool {
	for _, p := range ofApp(pods, app) {
		if old[p.UID] {
			return false
		}
	}
	return allReady(pods, app, n)
}

func uids(pods []*corev1.Pod) map[types.UID]bool {
	set := map[types.UID]bool{}
	for _, p := range pods {
		set[p.UID] = true
	}
	return set
}
