package bench

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"lastcall/admission/internal/apiservertest"
	"lastcall/admission/internal/corpus"
	"lastcall/internal/test/cputime"
)

// corpusFolder is the folder with the pods and the parameters.
const corpusFolder = "../../inject/testdata"

// The offered load: this number of calls at this interval, whether or not earlier
// calls have been answered.
const calls, every = 3000, 10 * time.Millisecond

// measured is the result of a load. Its durations are sorted.
type measured struct {
	durations []time.Duration
	cpu, took time.Duration
}

func (m measured) quantile(q float64) time.Duration {
	return m.durations[min(int(q*float64(len(m.durations))), len(m.durations)-1)]
}

func (m measured) of() string { return fmt.Sprintf("%d calls by HTTPS", len(m.durations)) }

func insecure() *http.Transport {
	return &http.Transport{MaxIdleConnsPerHost: 100, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
}

// parameters writes the ConfigMap's files and returns their folder.
func parameters(b *testing.B, dir string) string {
	b.Helper()
	folder := filepath.Join(dir, "injection")
	if err := os.Mkdir(folder, 0o700); err != nil {
		b.Fatal(err)
	}
	for key, value := range plain(b).ConfigMap.Data {
		if err := os.WriteFile(filepath.Join(folder, key), []byte(value), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return folder
}

func plain(b *testing.B) corpus.Case {
	b.Helper()
	cases := corpus.Read(b, corpusFolder)
	return cases[slices.IndexFunc(cases, func(c corpus.Case) bool { return c.Name == "several-containers" })]
}

// load sends the offered load: reviews that request the injection of a pod.
func (p *process) load(b *testing.B) measured {
	b.Helper()
	pod, err := json.Marshal(plain(b).Pod)
	if err != nil {
		b.Fatal(err)
	}
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Namespace: "team", Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: pod},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex
	var m measured
	var asked sync.WaitGroup
	tick := time.NewTicker(every)
	defer tick.Stop()
	before, began := cputime.Of(b, p.cmd.Process.Pid), time.Now()
	for range calls {
		<-tick.C
		asked.Go(func() {
			from := time.Now()
			if err := p.inject(body); err != nil {
				b.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			m.durations = append(m.durations, time.Since(from))
		})
	}
	asked.Wait()
	m.cpu, m.took = cputime.Of(b, p.cmd.Process.Pid)-before, time.Since(began)
	if b.Failed() {
		b.FailNow()
	}
	slices.Sort(m.durations)
	return m
}

func (p *process) inject(body []byte) error {
	resp, err := p.client.Post(p.url+"/inject", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // the body was read to its end: an error does not matter
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(text, &review); err != nil {
		return fmt.Errorf("%s %s: %w", resp.Status, text, err)
	}
	if review.Response == nil || !review.Response.Allowed || len(review.Response.Patch) == 0 {
		return fmt.Errorf("answered %s", text)
	}
	return nil
}

// create creates n pods with the gate's label. No kubelet runs them.
func create(b *testing.B, s *apiservertest.Server, n int) {
	b.Helper()
	admin, _ := s.Clients(b)
	template, no := plain(b).Pod, false
	names := make(chan string)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for name := range names {
				pod := template.DeepCopy()
				pod.ObjectMeta = metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web", "lastcall/gate": "true"}}
				pod.Spec.AutomountServiceAccountToken, pod.Spec.NodeName = &no, "node-1"
				if _, err := admin.CoreV1().Pods("team").Create(b.Context(), pod, metav1.CreateOptions{}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range n {
		names <- fmt.Sprintf("web-%d", i)
	}
	close(names)
	workers.Wait()
	if b.Failed() {
		b.FailNow()
	}
}
