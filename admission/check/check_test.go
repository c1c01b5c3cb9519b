package check

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// edit replaces old, which must be in the manifest, with new.
type edit struct{ old, new string }

const (
	good     = "testdata/good.yaml"
	labelled = "testdata/labelled.yaml"
	called   = "httpGet: {path: /prestop, port: 8099}"
	env      = "            - {name: LASTCALL_APP_PORT"
	token    = "            - {name: LASTCALL_TOKEN, value: orders}\n" + env
	own      = "            - {name: LASTCALL_TOKEN, value: orders}\n            - {name: LASTCALL_LISTEN, value: \":9099\"}\n" + env
	hookWith = "httpGet: {path: /prestop, port: 8099, httpHeaders: [{name: Authorization, value: Bearer orders}]}"
	app      = "        - name: app\n"
	second   = "        - name: second\n          image: x\n"
	always   = "          restartPolicy: Always\n"
	probe    = "          readinessProbe:\n            httpGet: {path: /readyz, port: 8099}\n"
	grace    = "terminationGracePeriodSeconds: 90"
	period   = "value: 90s"
	strategy = "rollingUpdate: {maxUnavailable: 0, maxSurge: 1}"
	config   = "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: orders}\ndata: {LASTCALL_TOKEN: orders}\n"
	from     = "          envFrom: [{configMapRef: {name: orders}}]\n          env:\n"
)

// TestRules applies each rule to manifests that contain its mistake, and to similar
// manifests that do not.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		rule    string
		file    string // good.yaml if empty
		with    []edit
		without []edit // edits without the mistake; the unchanged file is tried too
		fix     string // a part of the fix
		minor   int
	}{
		{rule: "grace-period-short", with: []edit{{grace, "terminationGracePeriodSeconds: 60"}, {period, "value: 60s"}},
			without: []edit{{grace, "terminationGracePeriodSeconds: 66"}, {period, "value: 66s"}}, fix: "terminationGracePeriodSeconds: 66\n- {name: LASTCALL_GRACE_PERIOD, value: 66s}"},
		{rule: "grace-period-short", file: labelled, with: []edit{{grace, "terminationGracePeriodSeconds: 65"}},
			without: []edit{{grace, "terminationGracePeriodSeconds: 36"}, {"lastcall/container: app", "lastcall/EUREKA_CLIENT_REFRESH: 0s"}}, fix: "terminationGracePeriodSeconds: 66"},
		{rule: "grace-period-zero", with: []edit{{grace, "terminationGracePeriodSeconds: 0"}},
			without: []edit{{grace, "terminationGracePeriodSeconds: 1"}}, fix: "terminationGracePeriodSeconds: 66"},
		{rule: "grace-period-zero", file: labelled, with: []edit{{grace, "terminationGracePeriodSeconds: 0"}},
			without: []edit{{grace, "# Kubernetes' default"}}},
		{rule: "grace-period-mismatch", with: []edit{{period, "value: 2m"}}, without: []edit{{period, "value: 1m30s"}}, fix: "- {name: LASTCALL_GRACE_PERIOD, value: 90s}"},
		{rule: "grace-period-mismatch", with: []edit{{grace, "terminationGracePeriodSeconds: 120"}}, fix: "value: 120s"},
		{rule: "grace-period-mismatch", file: labelled, with: []edit{{"lastcall/container: app", "lastcall/GRACE_PERIOD: 80s"}},
			without: []edit{{"lastcall/container: app", "lastcall/GRACE_PERIOD: 90s"}}, fix: "remove the annotation"},

		{rule: "hook-port-name", with: []edit{{called, "httpGet: {path: /prestop, port: lastcall}"}}, fix: "port: 8099"},
		{rule: "hook-port", with: []edit{{called, "httpGet: {path: /prestop, port: 8080}"}},
			without: []edit{{called, "httpGet: {path: /prestop, port: 9099}"}, {"port: 8099}", "port: 9099}"}, {env, "            - {name: LASTCALL_LISTEN, value: \":9099\"}\n" + env}}, fix: "port: 8099"},
		{rule: "hook-missing", with: []edit{{app, second + app}}, fix: "lifecycle: {preStop: {httpGet: {path: /prestop, port: 8099}}}"},
		{rule: "hook-missing", with: []edit{{"preStop", "postStart"}},
			without: []edit{{app, second + app}, {"labels: {app: orders}\n    spec", "labels: {app: orders}\n      annotations: {lastcall/container: app}\n    spec"}}},
		{rule: "hook-other", with: []edit{{called, "exec: {command: [nginx, -s, quit]}"}},
			without: []edit{{called, "exec: {command: [/lastcall/lastcall, hook, --, nginx, -s, quit]}"}}, fix: "[/lastcall/lastcall, hook, -grace-period, 90s, --, nginx, -s, quit]"},
		{rule: "hook-other", with: []edit{{called, "sleep: {seconds: 10}"}}, fix: "path: /prestop"},
		{rule: "hook-other", file: labelled, with: []edit{{app, app + "          lifecycle: {preStop: {httpGet: {path: /quit, port: 8080}}}\n"}},
			without: []edit{{app, app + "          lifecycle: {preStop: {exec: {command: [nginx, -s, quit]}}}\n"}}, fix: "exec hook"},
		{rule: "hook-other", file: labelled, with: []edit{{app, app + "          lifecycle: {preStop: {sleep: {seconds: 5}}}\n"}}},

		{rule: "hook-limit", with: []edit{{called, "exec: {command: [/lastcall/lastcall, hook, --, -grace-period, 90s]}"}},
			without: []edit{{called, "exec: {command: [/lastcall/lastcall, hook, --grace-period=90s, --, quit]}"}}, fix: "[/lastcall/lastcall, hook, -grace-period, 90s, --,"},
		{rule: "hook-limit", with: []edit{{called, "exec: {command: [lastcall, hook, -grace-period, 60s]}"}},
			without: []edit{{called, "exec: {command: [lastcall, hook]}"}, {app, app + "          env: [{name: LASTCALL_GRACE_PERIOD, value: 90s}]\n"}}},
		{rule: "hook-port", with: []edit{{called, "exec: {command: [lastcall, hook, -port, \"9099\"]}"}},
			without: []edit{{called, "exec: {command: [lastcall, hook]}"}}, fix: "-port, 8099"},
		{rule: "token", with: []edit{{env, token}, {called, "exec: {command: [lastcall, hook]}"}},
			without: []edit{{env, token}, {called, "exec: {command: [lastcall, hook, -token, orders]}"}}, fix: "-token, orders"},
		{rule: "token", with: []edit{{env, token}, {called, "exec: {command: [lastcall, hook, -token=other]}"}},
			without: []edit{{env, token}, {called, "exec: {command: [lastcall, hook, -token-file, /token]}"}}},
		{rule: "token", with: []edit{{env, token}}, without: []edit{{env, token}, {called, hookWith}}, fix: "httpHeaders: [{name: Authorization, value: Bearer orders}]"},
		{rule: "token", with: []edit{{env, token}, {called, strings.Replace(hookWith, "orders", "other", 1)}}},
		{rule: "token", with: []edit{{env, "            - {name: LASTCALL_TOKEN, valueFrom: {secretKeyRef: {name: x, key: y}}}\n" + env}},
			without: []edit{{env, "            - {name: LASTCALL_TOKEN, valueFrom: {secretKeyRef: {name: x, key: y}}}\n" + env}, {called, hookWith}}, fix: "Bearer TOKEN"},
		{rule: "token", with: []edit{{"          env:\n", from}, {"\n---\n", config + "---\n"}},
			without: []edit{{"          env:\n", from}}},

		{rule: "sidecar-liveness", with: []edit{{always, always + "          livenessProbe: {httpGet: {path: /livez, port: 8099}}\n"}},
			without: []edit{{app, app + "          livenessProbe: {httpGet: {path: /livez, port: 8080}}\n"}}, fix: "remove"},
		{rule: "sidecar-prestop", with: []edit{{always, always + "          lifecycle: {preStop: {sleep: {seconds: 10}}}\n"}},
			without: []edit{{always, always + "          lifecycle: {postStart: {sleep: {seconds: 1}}}\n"}}, fix: "remove"},
		{rule: "readiness", with: []edit{{probe, ""}}, fix: "readinessProbe: {httpGet: {path: /readyz, port: 8099}"},
		{rule: "readiness", with: []edit{{"path: /readyz, port: 8099", "path: /readyz, port: 8098"}},
			without: []edit{{"path: /readyz, port: 8099", "path: /readyz, port: lastcall"}, {always, always + "          ports: [{name: lastcall, containerPort: 8099}]\n"}}},
		{rule: "native-sidecar", with: []edit{{always, ""}}, fix: "restartPolicy: Always"},
		{rule: "native-sidecar-version", with: []edit{{"name: app\n", "name: app \n"}}, minor: 28, fix: "ordinary container"},
		{rule: "app-port", with: []edit{{env, "            - {name: X"}},
			without: []edit{{env, "            - {name: LASTCALL_COUNTERS, value: file}\n            - {name: X"}}, fix: `- {name: LASTCALL_APP_PORT, value: "8080"}`},
		{rule: "app-port", with: []edit{{env, "            - {name: X"}}, // without: a ConfigMap that is not in the manifest may set it
			without: []edit{{env, "            - {name: X"}, {"          env:\n", from}}},
		{rule: "app-port", with: []edit{{`"8080"`, "http"}}, without: []edit{{`"8080"`, `"8080,9090"`}}},
		{rule: "app-port", with: []edit{{`"8080"`, `"8090"`}}, without: []edit{{`"8080"`, `"8090"`}, {"            - containerPort: 8080\n", "            []\n"}}},
		{rule: "app-port", with: []edit{{`"8080"`, `"8099"`}}},
		{rule: "app-port", file: labelled, with: []edit{{"- containerPort: 8080", "[]"}}, fix: `lastcall/APP_PORT: "8080"`},

		{rule: "host-network", with: []edit{{grace, grace + "\n      hostNetwork: true"}}, fix: "LASTCALL_LISTEN"},
		{rule: "host-network", with: []edit{{grace, grace + "\n      hostNetwork: true"}, {env, own}, {called, strings.Replace(hookWith, "8099", "9099", 1)}, {"path: /readyz, port: 8099", "path: /readyz, port: 9099"}},
			without: []edit{{grace, grace + "\n      hostNetwork: true\n      dnsPolicy: ClusterFirstWithHostNet"}, {env, own}, {called, strings.Replace(hookWith, "path: /prestop, port: 8099", "host: 127.0.0.1, path: /prestop, port: 9099", 1)}, {"path: /readyz, port: 8099", "path: /readyz, port: 9099"}}, fix: "host: 127.0.0.1"},
		{rule: "host-network", file: labelled, with: []edit{{grace, grace + "\n      hostNetwork: true"}},
			without: []edit{{grace, grace + "\n      hostNetwork: false"}}, fix: "deployment-host-network-native.yaml"},
		{rule: "not-injected", file: labelled, with: []edit{{grace, grace + "\n      os: {name: windows}"}}, fix: "remove the label"},
		{rule: "unknown-container", file: labelled, with: []edit{{"lastcall/container: app", "lastcall/container: ap"}}, fix: "lastcall/container: app"},

		{rule: "min-ready-seconds", with: []edit{{"minReadySeconds: 60", "minReadySeconds: 1"}}, without: []edit{{"minReadySeconds: 60", "minReadySeconds: 5"}}, fix: "minReadySeconds: 60"},
		{rule: "min-ready-seconds", with: []edit{{"  minReadySeconds: 60\n", ""}, {"value: eureka}", "value: consul}"}}, without: []edit{{"  minReadySeconds: 60\n", ""}, {"value: eureka}", "value: etcd}"}}, fix: "minReadySeconds: 5"},
		{rule: "min-ready-seconds", file: labelled, with: []edit{{"  minReadySeconds: 60\n", ""}}, without: []edit{{"  minReadySeconds: 60\n", ""}, {"lastcall/container: app", `lastcall/READY_WHEN_LISTED: "true"`}}},
		{rule: "all-unavailable", with: []edit{{"replicas: 2", "replicas: 1"}, {strategy, "rollingUpdate: {maxUnavailable: 1}"}}, without: []edit{{"replicas: 2", "replicas: 1"}, {strategy, "type: RollingUpdate"}}, fix: "maxUnavailable: 0"},
		{rule: "all-unavailable", with: []edit{{"  replicas: 2\n", ""}, {strategy, "type: Recreate"}}, without: []edit{{strategy, "rollingUpdate: {maxUnavailable: 50%}"}}, fix: "RollingUpdate"},
		{rule: "all-unavailable", with: []edit{{strategy, "rollingUpdate: {maxUnavailable: 100%}"}}, without: []edit{{"  replicas: 2\n", ""}, {strategy, "rollingUpdate: {maxUnavailable: 1}"}, {"\n---\n", "\n---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: x}\nspec: {scaleTargetRef: {kind: Deployment, name: orders}}\n---\n"}}},
		{rule: "all-unavailable", file: labelled, with: []edit{{"replicas: 2", "replicas: 1"}}, without: []edit{{"replicas: 2", "replicas: 1\n  updateStrategy: {type: OnDelete}"}}, fix: "replicas: 2"},
		{rule: "pdb-blocks", with: []edit{{"  maxUnavailable: 1\n", "  maxUnavailable: 0\n"}}, without: []edit{{"  maxUnavailable: 1\n", "  maxUnavailable: 1%\n"}}, fix: "maxUnavailable: 1"},
		{rule: "pdb-blocks", with: []edit{{"  maxUnavailable: 1\n", "  minAvailable: 2\n"}}, without: []edit{{"  maxUnavailable: 1\n", "  minAvailable: 1\n"}}},
		{rule: "pdb-blocks", with: []edit{{"  maxUnavailable: 1\n", "  minAvailable: 100%\n"}}, without: []edit{{"  maxUnavailable: 1\n", "  minAvailable: 50%\n"}}},
		{rule: "pdb-blocks", with: []edit{{"  maxUnavailable: 1\n", "  minAvailable: 51%\n"}}, without: []edit{{"  maxUnavailable: 1\n  selector:\n    matchLabels: {app: orders}", "  maxUnavailable: 0\n  selector:\n    matchLabels: {app: other}"}}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			if c.file == "" {
				c.file = good
			}
			found := rulesIn(t, c.file, c.with, c.minor)
			n := slices.IndexFunc(found, func(f Finding) bool { return f.Rule == c.rule && strings.Contains(f.Fix, c.fix) })
			if n < 0 {
				t.Fatalf("with %q it is not found, or its fix lacks %q: %s", c.with, c.fix, list(found))
			}
			if f := found[n]; f.Line == 0 || f.File != c.file || f.Message == "" {
				t.Errorf("it lacks line, file or message: %+v", f)
			}
			for _, edits := range [][]edit{nil, c.without} {
				for _, f := range rulesIn(t, c.file, edits, 0) {
					if f.Rule == c.rule {
						t.Errorf("without the mistake (%q) it is found: %v", edits, f)
					}
				}
			}
		})
	}
}

// The unedited manifests have no findings.
func TestNoFindings(t *testing.T) {
	for _, file := range []string{good, labelled} {
		if found := rulesIn(t, file, nil, 29); len(found) > 0 {
			t.Errorf("%s: %s", file, list(found))
		}
	}
	// A pod without Lastcall has no findings.
	edits := []edit{{`        lastcall/inject: "true"` + "\n", ""}, {"replicas: 2", "replicas: 1"}}
	if found := rulesIn(t, labelled, edits, 0); len(found) > 0 {
		t.Errorf("without the label: %s", list(found))
	}
}

func rulesIn(t *testing.T, file string, edits []edit, minor int) []Finding {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range edits {
		if !strings.Contains(string(text), e.old) {
			t.Fatalf("%s does not hold %q", file, e.old)
		}
		text = []byte(strings.Replace(string(text), e.old, e.new, 1))
	}
	objects, err := Read(file, text)
	if err != nil {
		t.Fatal(err)
	}
	return Objects(objects, Options{Minor: minor})
}

func list(found []Finding) string {
	if len(found) == 0 {
		return "nothing is found"
	}
	var all strings.Builder
	for _, f := range found {
		fmt.Fprintf(&all, "\n%v\n    %s", f, f.Fix)
	}
	return all.String()
}
