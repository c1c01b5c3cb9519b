package steps

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.yaml.in/yaml/v3"

	"lastcall/drain"
	"lastcall/internal/fetch"
)

// Config is the configuration of `steps`, from the environment.
type Config struct {
	File          string        `envconfig:"LASTCALL_STEPS_FILE" default:"/etc/lastcall/steps.yaml" desc:"the calls and conditions that the registry steps runs, in YAML"`
	ClientRefresh time.Duration `envconfig:"LASTCALL_STEPS_CLIENT_REFRESH" default:"0s" desc:"how long whoever sends the pod work may use what it was told, once the conditions of the file hold"`
}

// New parses the file and returns the plug-in. It makes no call. The error
// joins all mistakes, each with its line and what would be correct.
func New(cfg Config, pod drain.Pod) (*Registry, error) {
	var mistakes []error
	if cfg.ClientRefresh < 0 {
		mistakes = append(mistakes, fmt.Errorf("LASTCALL_STEPS_CLIENT_REFRESH=%v: must not be negative", cfg.ClientRefresh))
	}
	content, err := readFile(cfg.File)
	if err != nil {
		return nil, errors.Join(append(mistakes, fmt.Errorf("LASTCALL_STEPS_FILE: cannot be read: %w", err))...)
	}
	root, err := document(cfg.File, content)
	if err != nil {
		return nil, errors.Join(append(mistakes, err)...)
	}
	p := &parser{name: cfg.File, source: source{pod: pod}}
	r, err := p.registry(root)
	if err := errors.Join(append(mistakes, err)...); err != nil {
		return nil, err
	}
	return r, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) > maxFile:
		return nil, fmt.Errorf("%s is longer than %d KiB", path, maxFile>>10)
	}
	return content, nil
}

// registry returns the registry of a file.
func (p *parser) registry(root *yaml.Node) (*Registry, error) {
	f, err := p.parse(root)
	if err != nil {
		return nil, err
	}
	fixed := values{fixed: p.fixed}
	hidden := secrets(p.fixed, p.source.isSecret)
	c, err := newCaller(f, fixed, hidden)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	if err := errors.Join(checkServers(c, fixed), checkTokens(f, fixed)); err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	return &Registry{file: f, caller: c, fixed: fixed, shown: show(root, fixed, p.source.isSecret)}, nil
}

// checkTokens reads the token files once, to find mistakes at start.
func checkTokens(f *file, fixed values) error {
	files := []text{f.token.file}
	for _, s := range sections() {
		for i := range f.sections[s] {
			files = append(files, f.sections[s][i].token.file)
		}
	}
	var mistakes []error
	for _, t := range files {
		path, err := t.expand(fixed, nil)
		if err != nil || path == "" {
			continue // a step sets it, or it is not set at all
		}
		if _, err := fetch.ReadToken("token_file", path); err != nil {
			mistakes = append(mistakes, err)
		}
	}
	return errors.Join(mistakes...)
}

func checkServers(c *caller, fixed values) error {
	if len(c.file.servers) == 0 {
		return nil
	}
	servers, err := c.servers(fixed)
	if err != nil {
		return err
	}
	if len(servers) == 0 || len(servers) > maxList {
		return fmt.Errorf("servers: there are %d; from 1 to %d are needed", len(servers), maxList)
	}
	for _, server := range servers {
		if _, err := fetch.ParseURL("servers: each", server, "http://pd-0:2379"); err != nil {
			return err
		}
	}
	return nil
}
