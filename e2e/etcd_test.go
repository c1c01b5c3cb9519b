package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lastcall/e2e/load"
)

func TestEtcd(t *testing.T) {
	each(t, []variant{native, bare}, (*scenario).etcdRestart)
}

// etcdRestart restarts the three members of examples/etcd one by one while clients
// write. With Lastcall, no write may fail, except those that etcd drops while its
// leadership is handed over. It logs the number of elections.
func (s *scenario) etcdRestart(v variant) {
	s.Helper()
	web := app{name: "etcd", replicas: 3, variant: v}
	s.volumes("data-etcd-", web.replicas)
	s.apply(s.etcd(v))
	service, err := s.client.CoreV1().Services(s.namespace).Get(s.ctx, "etcd", metav1.GetOptions{})
	s.must("asking for the Service", err)
	if v == gated {
		s.gates()
	}
	s.ready(web)
	before := s.raftTerm()

	clients := s.loadBy("load", "-url", "http://"+service.Spec.ClusterIP+":2379/v3/kv/put", "-body", `{"key":"a2V5","value":"dmFsdWU="}`, "-any",
		"-rate", "50", "-shortest", "1ms", "-longest", "1ms", "-keep-alive", "0")
	s.restartStatefulSet(web)
	clients.more(100)
	counts := clients.stop()
	elections := s.raftTerm() - before
	s.Logf("%d elections", elections)
	results.add("rolling restart of etcd's 3 members (election timeout 3 s) under writes", v, counts, s.longest(web))
	if v == bare {
		return
	}
	if dropped := droppedInHandover(counts); counts.Failed > dropped || dropped > int64(elections)*mostDropped {
		s.Errorf("%d of %d writes failed, %d of them were dropped while the leadership was handed over; there were %d elections, and at least 1 is due",
			counts.Failed, counts.Requests, dropped, elections)
	}
	s.wentWell(web)
	if v == gated {
		s.wentOnceDrained(web)
	}
}

// mostDropped is how many writes one handover may cost: at 50 a second, those of 0.4 s
// on a busy machine.
const mostDropped = 20

// droppedInHandover returns how many writes etcd dropped because its leadership was
// being handed over. The leader refuses its own clients' writes. Another member's
// clients wait until the write times out, because the leader sends no answer to a
// write that was forwarded to it (go.etcd.io/raft, raft.go: a leader with a
// leadTransferee drops proposals; node.go: Step does not wait for the result).
func droppedInHandover(counts load.Counts) (dropped int64) {
	for text, n := range counts.Errors {
		if strings.Contains(text, "raft proposal dropped") || strings.Contains(text, "request timed out") {
			dropped += n
		}
	}
	return dropped
}

// etcd returns the example with the tests' images. The variant decides whether it has
// Lastcall and the gate's label. The election timeout is long: on a busy machine a leader
// may be slow, and the members would otherwise elect another one during a write.
func (s *scenario) etcd(v variant) []byte {
	s.Helper()
	dir, err := filepath.EvalSymlinks(s.TempDir())
	s.must("making a folder", err)
	example, err := filepath.Abs("../examples/etcd")
	s.must("looking for examples/etcd", err)
	example, err = filepath.Rel(dir, example)
	s.must("looking for examples/etcd", err)
	text := fmt.Sprintf("namespace: %s\nresources: [%q]\n", s.namespace, example)
	patch := `{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "ETCD_ELECTION_TIMEOUT", "value": "3000"}}`
	switch {
	case !v.lastcall():
		patch += `, {"op": "remove", "path": "/spec/template/spec/initContainers"}, {"op": "remove", "path": "/spec/template/spec/containers/0/lifecycle"}`
	case v == gated:
		patch += `, {"op": "add", "path": "/spec/template/metadata/labels/lastcall~1gate", "value": "true"}`
	}
	text += fmt.Sprintf("patches:\n  - target: {kind: StatefulSet}\n    patch: '[%s]'\n", patch)
	s.must("writing a kustomization", os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600))
	lines := strings.Split(string(s.kubectl(nil, "kustomize", dir)), "\n")
	for i, line := range lines {
		switch before, name, _ := strings.Cut(line, "image: "); {
		case strings.HasPrefix(name, "lastcall:"):
			lines[i] = before + "image: " + lastcallImage()
		case strings.Contains(name, "/etcd:"):
			lines[i] = before + "image: " + registriesImage()
		}
	}
	return []byte(strings.Join(lines, "\n"))
}

// volumes creates n PersistentVolumes, one for each claim. It is necessary because the
// tests' own node has no provisioner. In other clusters it does nothing.
func (s *scenario) volumes(claims string, n int) {
	s.Helper()
	if os.Getenv("E2E_NODE") == "" {
		return
	}
	for i := range n {
		dir := s.TempDir()
		s.must("giving a volume to its user", os.Chown(dir, 65532, 65532))
		claim := claims + strconv.Itoa(i)
		size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
		volume, err := s.client.CoreV1().PersistentVolumes().Create(s.ctx, &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: s.namespace + "-" + claim},
			Spec: corev1.PersistentVolumeSpec{
				Capacity: size, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				ClaimRef:               &corev1.ObjectReference{Namespace: s.namespace, Name: claim},
				PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}},
			},
		}, metav1.CreateOptions{})
		s.must("creating a volume", err)
		s.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 30*time.Second)
			defer cancel()
			if err := s.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{}); err != nil {
				s.Logf("deleting a volume: %v", err)
			}
		})
	}
}

// raftTerm returns etcd's Raft term, which increases with each election.
func (s *scenario) raftTerm() (term int) {
	s.Helper()
	body, err := s.post("etcd-0", 2379, "/v3/maintenance/status")
	s.must("asking etcd for its status", err)
	var status struct {
		Header struct {
			RaftTerm string `json:"raft_term"`
		} `json:"header"`
	}
	s.must("reading etcd's status", json.Unmarshal(body, &status))
	term, err = strconv.Atoi(status.Header.RaftTerm)
	s.must("reading etcd's status", err)
	return term
}
