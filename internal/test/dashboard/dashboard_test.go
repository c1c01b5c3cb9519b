// Package dashboard runs the queries of the dashboard and of the alerts in a real
// Prometheus that scrapes real sidecars and the cluster side. It also draws the
// picture of the dashboard in the docs.
package dashboard

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
)

// TestDashboard drains pods in every way that the dashboard shows, and runs the
// queries of each panel.
func TestDashboard(t *testing.T) {
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	const interval = time.Second // scrape interval; a scrape must succeed within it
	prom := startPrometheus(t, interval)
	began := time.Now()

	quick := []string{"LASTCALL_ENDPOINTS_WAIT=100ms", "LASTCALL_QUIET=100ms"}
	// The kernel is a counter too, and LASTCALL_TCP_SILENCE is set. The long grace
	// period prevents the drain from being taken back while the app still listens.
	app := startApp(t)
	good := startPod(t, "good", consul, prom, append(quick, "LASTCALL_GRACE_PERIOD=10m",
		"LASTCALL_COUNTERS=file,tcp", "LASTCALL_APP_PORT="+app.port(), "LASTCALL_TCP_SILENCE=7s", "LASTCALL_READY_WHEN_LISTED=true")...)
	good.Eventually(t, "the app is seen to listen", func() error {
		listens := `lastcall_app_listening{port="` + app.port() + `"} 1`
		if answer := good.Want(t, http.StatusOK, http.MethodGet, "/metrics"); !strings.Contains(answer.Body, listens) {
			return fmt.Errorf("%s is not in %s", listens, answer.Body)
		}
		return nil
	})
	// Its budget is 1 s, its only request never ends, and its port is wrong.
	_, silent, _ := strings.Cut(freeport.Address(t), ":")
	late := startPod(t, "late", consul, prom, append(quick, "LASTCALL_GRACE_PERIOD=3s", "LASTCALL_RESERVE=2s", "LASTCALL_APP_PORT="+silent)...)
	late.inFlight(t, 1)
	// Its registry does not exist, one of its counters has nothing to read, and the
	// other has not seen enough yet.
	startPod(t, "broken", consul, prom, "CONSUL_HTTP_ADDR=http://"+freeport.Address(t), "LASTCALL_FILE_PATH=/nowhere/inflight",
		"LASTCALL_COUNTERS=file,tcp", "LASTCALL_APP_PORT="+app.port())

	startAdmission(t, prom)

	good.Want(t, http.StatusOK, http.MethodGet, "/prestop")
	late.Want(t, http.StatusGatewayTimeout, http.MethodGet, "/prestop")

	var seen time.Time
	prom.Wait(t, func() error {
		seen = time.Now()
		// A rate needs two scrapes that saw failures. Ended drains must have been
		// scraped too.
		for expr, want := range map[string]float64{
			`sum(max_over_time(lastcall_drain_duration_seconds_count[1h]))`:                                         2,
			`sum(count_over_time((sum(lastcall_registry_call_failures_total{pod="broken"}) > 0)[1m:1s])) >= bool 3`: 1,
			`count(lastcall_counter_up == 0)`:                                                                       1,
			`count(lastcall_app_port_silent == 1)`:                                                                  1,
			`count(lastcall_build_info)`:                                                                            3,
			`sum(count_over_time(lastcall_admission_build_info[1h])) >= bool 3`:                                     1,
		} {
			found := prom.query(t, expr, seen)
			if len(found) != 1 || found[0].points[0].value != want {
				return fmt.Errorf("%s is %v, want %v", expr, found, want)
			}
		}
		return nil
	})

	v := view{from: began, to: seen, interval: interval, rate: time.Minute}
	d := readDashboard(t)
	for _, p := range d.Panels {
		t.Run(p.Title, func(t *testing.T) {
			for i, target := range p.Targets {
				if !slices.ContainsFunc(p.ask(t, prom, v), func(s shown) bool { return s.target == i && len(s.points) > 0 && !strings.Contains(s.name, "{{") }) {
					t.Errorf("no data for %s", v.expr(target.Expr))
				}
			}
		})
	}
	holds := func(title, name string, want float64) {
		t.Helper()
		i := slices.IndexFunc(d.Panels, func(p panel) bool { return p.Title == title })
		if i < 0 {
			t.Fatalf("there is no panel %q", title)
		}
		for _, s := range d.Panels[i].ask(t, prom, v) {
			if last := s.points[len(s.points)-1].value; s.name == name && last == want {
				return
			}
		}
		t.Errorf("%s: %s is not %v: %v", title, name, want, d.Panels[i].ask(t, prom, v))
	}
	holds("Drains", "drained", 1)
	holds("Drains", "expired", 1)
	holds("Drains", "cut_short", 0)
	holds("Ended in time", "", 0.5)
	holds("Pods by phase", "drained", 1)
	holds("Pods by phase", "expired", 1)
	holds("Pods by phase", "serving", 1)
	holds("Work in flight", "file", 1)
	holds("Work in flight in pods that leave", "late", 1)
	holds("Counters that cannot be read", "file", 1)
	holds("How long drains took", "budget", 1)
	holds("Pods with Lastcall", "dev", 3)
	holds("Silences in the middle of work", "longest seen, tcp", 0)
	holds("Silences in the middle of work", "silence used, tcp", 7)
	holds("Pods that have seen too little to say", "tcp", 1)
	holds("Pods held by the gate", "waiting", 0)
	holds("Pods held by the gate", "overdue", 0)
	holds("Pods let go by the gate", "no_sidecar", 0)
	holds("Ready replicas of lastcall-admission", "", 0)
	ports := map[string]float64{}
	for _, s := range d.Panels[slices.IndexFunc(d.Panels, func(p panel) bool { return p.Title == "The app's ports" })].ask(t, prom, v) {
		ports[s.labels["pod"]+" "+s.labels["port"]+" "+[]string{"starts", "listens", "never listened"}[s.target]] = s.points[0].value
	}
	for what, want := range map[string]float64{
		"good " + app.port() + " starts": 1, "good " + app.port() + " listens": 1, "good " + app.port() + " never listened": 0,
		"late " + silent + " starts": 0, "late " + silent + " listens": 0, "late " + silent + " never listened": 1,
	} {
		if got, ok := ports[what]; !ok || got != want {
			t.Errorf("The app's ports: %s is %v, want %v: %v", what, got, want, ports)
		}
	}

	t.Run("picture", func(t *testing.T) {
		text := draw(t, d, prom, v)
		for _, p := range d.Panels {
			if !bytes.Contains(text, []byte(">"+escape(p.Title)+"<")) {
				t.Errorf("the picture lacks the panel %s", p.Title)
			}
		}
	})
	t.Run("alerts", func(t *testing.T) { alerts(t, prom) })
	t.Run("names", func(t *testing.T) { names(t, prom) })
}

// alerts checks that Prometheus evaluates every rule, and that the alert for the
// expired drain fires.
func alerts(t *testing.T, prom *prometheus) {
	t.Helper()
	prom.Wait(t, func() error {
		var data struct {
			Groups []struct {
				Rules []struct {
					Name, Health, State string
					Alerts              []struct{ Labels map[string]string }
				}
			}
		}
		if err := prom.get("/api/v1/rules", &data); err != nil {
			return err
		}
		var firing []string
		for _, group := range data.Groups {
			for _, rule := range group.Rules {
				if rule.Health != "ok" {
					return fmt.Errorf("%s: %s", rule.Name, rule.Health)
				}
				for _, alert := range rule.Alerts {
					firing = append(firing, rule.Name+" "+alert.Labels["namespace"]+"/"+alert.Labels["pod"]+" "+rule.State)
				}
			}
		}
		for _, want := range []string{
			"LastcallDrainExpired shop/late firing",
			"LastcallWorkCutOff shop/late firing",
			"LastcallCounterUnreadable shop/broken pending",
			"LastcallAppPortSilent shop/late pending",
			"LastcallPodStaysOut shop/good pending",
			"LastcallAdmissionDown lastcall-system/ pending",
			"LastcallAdmissionNotReady lastcall-system/gate pending",
		} {
			if !slices.Contains(firing, want) {
				return fmt.Errorf("%q is not among %q", want, firing)
			}
		}
		if slices.Contains(firing, "LastcallDrainExpired shop/good firing") {
			t.Errorf("there is an alert for a successful drain: %q", firing)
		}
		return nil
	})
}

var metricName = regexp.MustCompile(`\blastcall_[a-z_]+`)

// names checks that the sidecar or the cluster side exposes every metric in the
// dashboard and the rules.
func names(t *testing.T, prom *prometheus) {
	t.Helper()
	var known []string
	if err := prom.get("/api/v1/label/__name__/values", &known); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"dashboard.json", "rules.yaml", "rules_test.yaml"} {
		text, err := os.ReadFile(monitoring + "/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range metricName.FindAllString(string(text), -1) {
			if !slices.Contains(known, name) {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
	}
}

// TestRules runs the tests of the alerts.
func TestRules(t *testing.T) {
	promtool(t, nil, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")
	promtool(t, nil, "test", "rules", "rules_test.yaml")
}

// TestScrapeConfig checks the configuration in the docs.
func TestScrapeConfig(t *testing.T) {
	text, err := os.ReadFile("../../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	_, config, found := strings.Cut(string(text), "```yaml\n")
	config, _, closed := strings.Cut(config, "```")
	if !found || !closed || !strings.HasPrefix(config, "scrape_configs:") {
		t.Fatalf("the docs show %q", config)
	}
	file := filepath.Join(t.TempDir(), "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "config", "--lint=all", "--lint-fatal", file)
}

// TestMetricsAsPrometheusLikesThem runs promtool's check of the metrics.
func TestMetricsAsPrometheusLikesThem(t *testing.T) {
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	app := startApp(t)
	p := startPod(t, "web", consul, startPrometheus(t, time.Second), "LASTCALL_COUNTERS=file,tcp", "LASTCALL_APP_PORT="+app.port())
	page := p.Want(t, http.StatusOK, http.MethodGet, "/metrics").Body
	// promtool takes "counter" in this name for the metric's type. It means the
	// counters of LASTCALL_COUNTERS, as in lastcall_counter_up.
	named := regexp.MustCompile(`(?m)^(# (?:HELP|TYPE) )?lastcall_counter_errors_total`)
	if !named.MatchString(page) {
		t.Errorf("there is no lastcall_counter_errors_total in\n%s", page)
	}
	page = named.ReplaceAllString(page, "${1}lastcall_source_errors_total")
	promtool(t, strings.NewReader(page), "check", "metrics")
}

func promtool(t *testing.T, stdin *strings.Reader, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), servers.Need(t, "promtool"), args...)
	cmd.Dir = monitoring
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
