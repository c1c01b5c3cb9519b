package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"lastcall/admission/check"
)

const correct, labelled = "../../check/testdata/good.yaml", "../../check/testdata/labelled.yaml"

// command runs the program with stdin as its standard input.
func command(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

// edited returns the labelled manifest with a mistake.
func edited(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(labelled)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(text), "terminationGracePeriodSeconds: 90", "terminationGracePeriodSeconds: 60", 1)
}

func TestCheckExitCodes(t *testing.T) {
	bad := edited(t)
	folder := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	file := write("a/b/orders.yaml", bad)
	write("README.md", "{{ no manifest")
	write(".git/x.yaml", "{{ no manifest")
	template := filepath.Join(t.TempDir(), "template.yaml")
	if err := os.WriteFile(template, []byte("a: {{ .Values.a }}\nb: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args   []string
		stdin  string
		code   int
		stdout string
		stderr string
	}{
		"nothing is wrong":     {args: []string{"check", correct, labelled}, code: 0},
		"a mistake":            {args: []string{"check", file}, code: 1, stdout: file + ":18: shop/StatefulSet/orders: "},
		"its fix":              {args: []string{"check", file}, code: 1, stdout: "\n    terminationGracePeriodSeconds: 66\n"},
		"standard input":       {args: []string{"check", "-"}, stdin: bad, code: 1, stdout: "-:18: "},
		"folder":               {args: []string{"check", folder}, code: 1, stdout: file + ":18: "},
		"flags behind":         {args: []string{"check", file, "-o", "json"}, code: 1, stdout: `"rule": "grace-period-short"`},
		"json of no finding":   {args: []string{"check", "-o", "json", correct}, code: 0, stdout: "[]\n"},
		"old cluster":          {args: []string{"check", "-kubernetes-version", "v1.28.3", correct}, code: 1, stdout: "native-sidecar-version"},
		"unreadable version":   {args: []string{"check", "-kubernetes-version", "2", correct}, code: 2, stderr: "must be like 1.28"},
		"unreadable format":    {args: []string{"check", "-o", "xml", correct}, code: 2, stderr: "text or json"},
		"unknown flag":         {args: []string{"check", "-x", correct}, code: 2, stderr: "not defined: -x"},
		"no file":              {args: []string{"check"}, code: 2, stderr: "standard input"},
		"a file that is gone":  {args: []string{"check", file, "gone.yaml"}, code: 2, stdout: file + ":18: ", stderr: "gone.yaml"},
		"a template":           {args: []string{"check", template}, code: 2, stderr: "helm template"},
		"unknown command":      {args: []string{"chekc"}, code: 2, stderr: `unknown command "chekc"`},
		"no command":           {code: 2, stderr: "usage"},
		"help":                 {args: []string{"help"}, code: 0, stdout: "usage"},
		"version":              {args: []string{"version"}, code: 0, stdout: "lastcall-admission dev"},
		"serve with arguments": {args: []string{"serve", "x"}, code: 2, stderr: "unexpected"},
		"serve, no files":      {args: []string{"serve", "-cert-file", "gone.crt"}, code: 1, stderr: "gone.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := command(t, c.stdin, c.args...)
			if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
				t.Errorf("exit code %d, want %d\n%s\n%s", code, c.code, stdout, stderr)
			}
		})
	}
}

// check reads all documents of a stream, the items of Lists, and JSON.
func TestCheckForms(t *testing.T) {
	bad := edited(t)
	list := "apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(bad), "\n", "\n  ") + "\n"
	for name, stdin := range map[string]string{
		"documents": "# nothing\n---\na: 1\n---\n" + bad + "\n---\n" + bad,
		"list":      list + "---\n" + list,
	} {
		_, stdout, stderr := command(t, stdin, "check", "-o", "json", "-")
		var found []check.Finding
		if err := json.Unmarshal([]byte(stdout), &found); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, stderr)
		}
		if len(found) != 2 || found[0].Line == 0 || found[0].Line == found[1].Line || found[0].Object != "shop/StatefulSet/orders" {
			t.Errorf("%s: %+v", name, found)
		}
	}
	json := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","labels":{"lastcall/inject":"true"}},
	"spec":{"hostNetwork":true,"containers":[{"name":"app"}]}}`
	if code, stdout, _ := command(t, json, "check", "-"); code != 1 || !strings.Contains(stdout, "Pod/p") {
		t.Errorf("JSON: %d %s", code, stdout)
	}
}

func TestCheckUnreadableInput(t *testing.T) {
	var out, stderr bytes.Buffer
	if code := run(t.Context(), []string{"check", "-"}, iotest.ErrReader(os.ErrClosed), &out, &stderr); code != 2 {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}
