// Package docs compares the documentation with the program: the variables, the make
// targets and the links. It also compares the Chinese pages with the English ones.
package docs

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lastcall/internal/test/servers"
)

// project is the folder that holds README.md.
var project = filepath.Join("..", "..", "..")

var (
	variableName = regexp.MustCompile(`\bLASTCALL_[A-Z0-9_]*`)
	makeTarget   = regexp.MustCompile("(?m)(?:^|`|\\$ )make ([a-z][a-z0-9-]*)")
	makeRule     = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`)
	link         = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
)

func TestVariables(t *testing.T) {
	known := configured(t)
	t.Run("what is written is known", func(t *testing.T) {
		for _, file := range written(t, "README.md", "README.zh-CN.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "deploy", "examples") {
			for _, name := range variableName.FindAllString(read(t, file), -1) {
				if !slices.ContainsFunc(known, func(k string) bool {
					// LASTCALL_EUREKA_… stands for all variables with this prefix.
					// LASTCALL_PORT belongs to the hook, not to the sidecar.
					return k == name || name == "LASTCALL_PORT" || strings.HasSuffix(name, "_") && strings.HasPrefix(k, name)
				}) {
					t.Errorf("%s: the program does not know %s", file, name)
				}
			}
		}
	})
	t.Run("what is known is in README.md", func(t *testing.T) {
		readme := variableName.FindAllString(read(t, filepath.Join(project, "README.md")), -1)
		for _, name := range known {
			if !slices.Contains(readme, name) {
				t.Errorf("README.md does not describe %s", name)
			}
		}
	})
}

// TestDefaults compares the tables of variables with the program's defaults.
func TestDefaults(t *testing.T) {
	known := defaults(t)
	tables := 0
	for _, file := range markdown(t) {
		in := false
		for line := range strings.Lines(read(t, file)) {
			cells := strings.Split(line, "|")
			switch {
			case strings.HasPrefix(line, "| variable | default |"), strings.HasPrefix(line, "| 变量 | 默认值 |"):
				in, tables = true, tables+1
			case !strings.HasPrefix(line, "|"):
				in = false
			case in && !strings.HasPrefix(line, "| ---"):
				written := strings.Split(cells[2], ",")
				for i, name := range variableName.FindAllString(cells[1], -1) {
					want := ""
					if i < len(written) {
						want = strings.Trim(written[i], " `")
					}
					if got, ok := known[name]; !ok || got != want {
						t.Errorf("%s: the default of %s is %q, and the program's is %q", file, name, want, got)
					}
				}
			}
		}
	}
	if tables < 3 {
		t.Errorf("there are %d tables of variables, want those of README.md, README.zh-CN.md and docs/tcp.md at least", tables)
	}
}

func TestMakeTargets(t *testing.T) {
	var targets []string
	for _, rule := range makeRule.FindAllStringSubmatch(read(t, filepath.Join(project, "Makefile")), -1) {
		targets = append(targets, rule[1])
	}
	for _, file := range markdown(t) {
		for _, command := range makeTarget.FindAllStringSubmatch(read(t, file), -1) {
			if !slices.Contains(targets, command[1]) {
				t.Errorf("%s: there is no make %s", file, command[1])
			}
		}
	}
}

func TestLinks(t *testing.T) {
	for _, file := range markdown(t) {
		for _, target := range link.FindAllStringSubmatch(read(t, file), -1) {
			if strings.Contains(target[1], ":") {
				continue // an external URL
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), target[1])); err != nil {
				t.Errorf("%s: a link leads nowhere: %v", file, err)
			}
		}
	}
}

// configured returns the variables that the program lists.
func configured(t *testing.T) []string {
	t.Helper()
	out := config(t)
	names := variableName.FindAllString(out, -1)
	slices.Sort(names)
	names = slices.Compact(names)
	if !slices.Contains(names, "LASTCALL_LISTEN") {
		t.Fatalf("lastcall config does not list LASTCALL_LISTEN:\n%s", out)
	}
	return names
}

// defaults returns the default of each variable, as the program prints it.
func defaults(t *testing.T) map[string]string {
	t.Helper()
	out := config(t)
	header, lines, _ := strings.Cut(out, "\n")
	from, to := strings.Index(header, "DEFAULT"), strings.Index(header, "WHAT")
	if from < 0 || to < from {
		t.Fatalf("lastcall config has no column of defaults:\n%s", out)
	}
	all := map[string]string{}
	for line := range strings.Lines(lines) {
		name, _, _ := strings.Cut(line, " ")
		value := strings.TrimSpace(line[from:to])
		if value == "-" {
			value = ""
		}
		all[name] = value
	}
	return all
}

// config returns what the program prints about its variables when none is set.
func config(t *testing.T) string {
	t.Helper()
	servers.DependsOn(t, "lastcall/cmd/lastcall")
	program := filepath.Join(t.TempDir(), "lastcall")
	build := exec.Command("go", "build", "-o", program, "lastcall/cmd/lastcall")
	build.Env = servers.GoEnv()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	config := exec.Command(program, "config")
	config.Env = []string{} // nothing set: all defaults, no mistakes
	var problems bytes.Buffer
	config.Stderr = &problems
	out, err := config.Output()
	if err != nil {
		t.Fatalf("lastcall config: %v\n%s", err, problems.String())
	}
	return string(out)
}

// markdown returns the Markdown pages.
func markdown(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(written(t, "README.md", "README.zh-CN.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "deploy", "examples"), func(file string) bool {
		return filepath.Ext(file) != ".md"
	})
}

// written returns the project's files with the given names, without files that
// builds create.
func written(t *testing.T, names ...string) []string {
	t.Helper()
	var files []string
	for _, name := range names {
		err := filepath.WalkDir(filepath.Join(project, name), func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && (entry.Name() == "target" || entry.Name() == "bin"):
				return fs.SkipDir
			case entry.Type().IsRegular():
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
