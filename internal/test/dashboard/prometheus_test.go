package dashboard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
)

// prometheus is a running Prometheus with the project's rules. It scrapes the pods
// in its targets file.
type prometheus struct {
	*servers.Process
	url     string
	targets string // file with the pods
	pods    []target
	client  *http.Client
}

// target is an entry for Prometheus' file discovery.
type target struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// startPrometheus starts Prometheus. It scrapes, and evaluates the rules, every
// interval.
func startPrometheus(t testing.TB, interval time.Duration) *prometheus {
	t.Helper()
	dir := t.TempDir()
	p := &prometheus{targets: filepath.Join(dir, "pods.json"), client: servers.Client(t)}
	p.tell(t)
	rules, err := filepath.Abs(monitoring + "/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
global: {scrape_interval: %[1]v, scrape_timeout: %[1]v, evaluation_interval: %[1]v}
rule_files: [%[2]q]
scrape_configs:
  - job_name: lastcall
    file_sd_configs: [{files: [%[3]q], refresh_interval: 1s}]
    tls_config: {insecure_skip_verify: true} # of the cluster's side
`, interval, rules, p.targets)
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeport.Address(t)
	p.url = "http://" + address
	p.Process = servers.StartProgram(t, nil, "prometheus", "--config.file="+file,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--log.level=warn")
	p.Wait(t, func() error {
		resp, err := p.client.Get(p.url + "/-/ready")
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }() // not needed
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
	return p
}

// scrape adds a sidecar to the scraped pods.
func (p *prometheus) scrape(t testing.TB, pod string, s *sidecar.Sidecar) {
	t.Helper()
	// The labels that a PodMonitor's targets have.
	labels := map[string]string{"namespace": "shop", "pod": pod, "container": "lastcall"}
	p.scrapeAt(t, strings.TrimPrefix(s.URL, "http://"), labels)
}

func (p *prometheus) scrapeAt(t testing.TB, address string, labels map[string]string) {
	t.Helper()
	p.pods = append(p.pods, target{[]string{address}, labels})
	p.tell(t)
}

// forget ends the scrapes of a pod, as a deletion does.
func (p *prometheus) forget(t testing.TB, pod string) {
	t.Helper()
	p.pods = slices.DeleteFunc(p.pods, func(o target) bool { return o.Labels["pod"] == pod })
	p.tell(t)
}

func (p *prometheus) tell(t testing.TB) {
	t.Helper()
	text, err := json.Marshal(append([]target{}, p.pods...))
	if err == nil {
		err = os.WriteFile(p.targets+".tmp", text, 0o600)
	}
	if err == nil {
		err = os.Rename(p.targets+".tmp", p.targets)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// series is one of a query's results. An instant query has one point.
type series struct {
	labels map[string]string
	points []point
}

type point struct {
	at, value float64 // seconds since 1970
}

// query returns the values at one moment.
func (p *prometheus) query(t testing.TB, expr string, at time.Time) []series {
	t.Helper()
	found, err := p.ask("/api/v1/query", url.Values{"query": {expr}, "time": {seconds(at)}})
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return found
}

// queryRange returns the values over a time range.
func (p *prometheus) queryRange(t testing.TB, expr string, from, to time.Time, step time.Duration) []series {
	t.Helper()
	found, err := p.ask("/api/v1/query_range", url.Values{
		"query": {expr}, "start": {seconds(from)}, "end": {seconds(to)}, "step": {step.String()},
	})
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return found
}

func seconds(at time.Time) string {
	return strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64)
}

func (p *prometheus) ask(path string, values url.Values) ([]series, error) {
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  sample
			Values []sample
		}
	}
	if err := p.get(path+"?"+values.Encode(), &data); err != nil {
		return nil, err
	}
	var found []series
	for _, r := range data.Result {
		s := series{labels: r.Metric}
		if r.Values == nil {
			r.Values = []sample{r.Value}
		}
		for _, v := range r.Values {
			s.points = append(s.points, point(v))
		}
		found = append(found, s)
	}
	return found, nil
}

// sample is a point in Prometheus' JSON: [seconds, "value"].
type sample point

func (s *sample) UnmarshalJSON(text []byte) error {
	var value string
	if err := json.Unmarshal(text, &[]any{&s.at, &value}); err != nil {
		return err
	}
	var err error
	s.value, err = strconv.ParseFloat(value, 64)
	if math.IsNaN(s.value) || math.IsInf(s.value, 0) {
		return fmt.Errorf("the value is %s", value)
	}
	return err
}

// get decodes the data in an answer of Prometheus' API.
func (p *prometheus) get(path string, data any) error {
	resp, err := p.client.Get(p.url + path)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("%s: %s: %w", resp.Status, text, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", resp.Status, answer.Error)
	}
	return nil
}
