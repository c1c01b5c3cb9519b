package prometheus

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lastcall/internal/test/servers"
)

// TestMain runs the tests, or, if the tests have started it again, the program
// whose work is counted: a web server instrumented with Prometheus' own
// library.
func TestMain(m *testing.M) {
	program := serve
	switch os.Getenv("PROGRAM") {
	case "":
		os.Exit(m.Run())
	case "recipe":
		program = serveRecipe
	}
	if err := program(); err != nil {
		fmt.Fprintln(os.Stderr, "program:", err)
		os.Exit(1)
	}
}

// gauge is the program's metric, with the labels job and path.
const gauge = "http_server_active_requests"

// requests is its counter, with the label path.
const requests = "http_server_requests_total"

// serve listens, prints its address, and ends when its standard input ends.
//
//	GET  /                 answers at once
//	POST /hold             is in flight until its body ends
//	GET  /metrics          the exposition, which counts its own scrape
//	PUT  /broken/{how}     breaks the exposition; how is one of broken
//	PUT  /broken/not       repairs it
func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	inFlight := client.NewGaugeVec(client.GaugeOpts{Name: gauge, Help: "Requests being worked on."}, []string{"job", "path"})
	registry := client.NewRegistry()
	total := client.NewCounterVec(client.CounterOpts{Name: requests, Help: "Requests that have come."}, []string{"path"})
	registry.MustRegister(inFlight, total)
	// Another metric whose name has the same beginning, and one whose value is
	// always 7.
	registry.MustRegister(client.NewGaugeFunc(client.GaugeOpts{Name: gauge + "_limit"}, func() float64 { return 7 }))
	inFlight.WithLabelValues("batch", "/hold").Set(7)

	counted := func(path string, h http.HandlerFunc) http.Handler {
		came := total.WithLabelValues(path)
		return promhttp.InstrumentHandlerInFlight(inFlight.WithLabelValues("web", path), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			came.Inc()
			h(w, r)
		}))
	}
	var how atomic.Value
	how.Store("not")
	exposition := promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", counted("/", func(http.ResponseWriter, *http.Request) {}))
	mux.Handle("POST /hold", counted("/hold", func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if err := errors.Join(control.EnableFullDuplex(), control.Flush()); err != nil {
			panic(err)
		}
		_, _ = io.Copy(w, r.Body)
	}))
	mux.Handle("GET /metrics", counted("/metrics", func(w http.ResponseWriter, r *http.Request) {
		if answer := broken[how.Load().(string)]; answer != nil {
			answer(w)
			return
		}
		exposition.ServeHTTP(w, r)
	}))
	mux.HandleFunc("PUT /broken/{how}", func(_ http.ResponseWriter, r *http.Request) { how.Store(r.PathValue("how")) })

	server := &http.Server{Handler: mux}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serveRecipe is the app of the Go recipe.
func serveRecipe() error {
	inFlight := client.NewGauge(client.GaugeOpts{Name: "http_requests_in_flight", Help: "Requests being worked on."})
	total := client.NewCounter(client.CounterOpts{Name: "http_requests_total", Help: "Requests that have come."})
	registry := client.NewRegistry()
	registry.MustRegister(inFlight, total)
	counted := func(h http.HandlerFunc) http.Handler {
		return promhttp.InstrumentHandlerInFlight(inFlight, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			total.Inc()
			h(w, r)
		}))
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", counted(func(http.ResponseWriter, *http.Request) {}))
	mux.Handle("GET /hold", counted(func(w http.ResponseWriter, r *http.Request) {
		request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, os.Getenv("BACKEND")+r.URL.RequestURI(), http.NoBody)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		_, _ = io.Copy(w, answer.Body)
	}))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{})) // not counted
	server := &http.Server{Handler: mux, Addr: "127.0.0.1:" + os.Getenv("PORT"), ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

// broken contains ways in which an exposition can be unusable.
var broken = map[string]func(http.ResponseWriter){
	"500":      func(w http.ResponseWriter) { http.Error(w, "collecting failed", http.StatusInternalServerError) },
	"empty":    func(http.ResponseWriter) {},
	"web page": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>\n<h1>It works!</h1>\n") },
	"NaN":      func(w http.ResponseWriter) { _, _ = io.WriteString(w, gauge+`{job="web"} NaN`+"\n") },
	"cut": func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, gauge+`{job="web"} 0`+"\n")
	},
}

type program struct{ url string }

func start(t *testing.T) *program {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	// The race detector's wait at exit would be most of each test's time.
	cmd.Env = append(os.Environ(), "PROGRAM=web", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	in, out := servers.Talk(t, cmd)
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the program: %v", err)
		}
	})
	addr, err := out.ReadString('\n')
	if err != nil {
		t.Fatalf("the program did not come up: %v", err)
	}
	return &program{"http://" + strings.TrimSpace(addr)}
}

// begin starts a request, and returns once the program works on it.
func (p *program) begin(t *testing.T) (end func()) {
	t.Helper()
	body, finish := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/hold", body)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = finish.Close(); _ = answer.Body.Close() })
	return sync.OnceFunc(func() {
		_ = finish.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			t.Errorf("the answer: %v", err)
		}
		_ = answer.Body.Close()
	})
}

// idle leaves a connection open that has received its answer.
func (p *program) idle(t *testing.T) {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p.do(t, &http.Client{Transport: transport}, http.MethodGet, "/")
}

// breaks makes the program's exposition unusable, in one of the ways of broken.
func (p *program) breaks(t *testing.T, how string) {
	t.Helper()
	p.do(t, http.DefaultClient, http.MethodPut, "/broken/"+strings.ReplaceAll(how, " ", "%20"))
}

func (p *program) do(t *testing.T, c *http.Client, method, path string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, p.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s, %v", method, path, answer.Status, err)
	}
}
