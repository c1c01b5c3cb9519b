package counting

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"lastcall/internal/test/sidecar"
)

// Settings say which runs are made, and how.
type Settings struct {
	Match      string // a regular expression that the names of runs must match
	Most       int    // maximum number of runs; 0: all
	AtOnce     int    // how many at the same time
	Everything bool   // keep all data of each run, not only of runs with a wrong verdict
	// Log is the file for the results, one line of JSON for each.
	Log string
}

// Play makes the runs, and returns their results. Each server has its own process
// and its own network namespace.
func Play(t testing.TB, program *sidecar.Program, s Settings) []Result {
	t.Helper()
	runs, err := Select(s.Match, s.Most)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}()
	p := &progress{t: t, log: log, runs: len(runs), began: time.Now()}
	tasks := divide(runs, s)
	var all sync.WaitGroup
	for server, do := range tasks {
		all.Go(func() {
			if err := p.play(t, program, server, &do); err != nil {
				t.Errorf("the runs with %s: %v", server, err)
			}
		})
	}
	all.Wait()
	if len(p.results) != len(runs) {
		t.Errorf("%d runs have a result, of %d", len(p.results), len(runs))
	}
	return p.results
}

// divide assigns each server its runs, and a share of AtOnce in proportion to the
// time that its runs take.
func divide(runs []Run, s Settings) map[string]task {
	tasks := make(map[string]task)
	lasts := make(map[string]time.Duration)
	var all time.Duration
	for _, r := range runs {
		do := tasks[r.Server]
		do.Runs = append(do.Runs, r)
		tasks[r.Server] = do
		lasts[r.Server] += r.lasts()
		all += r.lasts()
	}
	for server, do := range tasks {
		do.AtOnce = min(len(do.Runs), 1+int(float64(s.AtOnce)*float64(lasts[server])/float64(all)))
		do.Everything = s.Everything
		tasks[server] = do
	}
	return tasks
}

// Longest returns an estimate of how long all runs take together.
func Longest(runs []Run, atOnce int) time.Duration {
	var longest time.Duration
	for _, do := range divide(runs, Settings{AtOnce: atOnce}) {
		var all time.Duration
		for _, r := range do.Runs {
			all += r.lasts()
		}
		longest = max(longest, all/time.Duration(do.AtOnce))
	}
	return longest
}

// progress collects the results.
type progress struct {
	t     testing.TB
	began time.Time
	runs  int

	mu      sync.Mutex
	log     io.Writer
	results []Result
}

// sayEvery is the number of results between two progress messages.
const sayEvery = 100

func (p *progress) take(line []byte) error {
	var r Result
	if err := json.Unmarshal(line, &r); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.log.Write(append(line, '\n')); err != nil {
		return err
	}
	for _, v := range r.Verdicts {
		v.Before, v.During, v.After, v.Log = nil, nil, nil, "" // the file has them
	}
	p.results = append(p.results, r)
	if len(p.results)%sayEvery == 0 {
		p.t.Logf("%v: %d of %d runs", time.Since(p.began).Round(time.Second), len(p.results), p.runs)
	}
	return nil
}

// play starts a process that makes the runs of one server.
func (p *progress) play(t testing.TB, program *sidecar.Program, server string, do *task) error {
	text, err := json.Marshal(do)
	if err != nil {
		return err
	}
	file := filepath.Join(t.TempDir(), "runs.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	results, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = results.Close() }() // it was read to its end
	var output bytes.Buffer
	cmd := exec.CommandContext(context.Background(), self) //nolint:gosec // this program
	cmd.Env = append(os.Environ(), worldVariable+"="+file, programVariable+"="+program.Path, "GOMAXPROCS="+strconv.Itoa(2))
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	err = cmd.Start()
	_ = write.Close() // the process has its own copy
	if err != nil {
		return fmt.Errorf("starting a process in a network namespace: %w", err)
	}
	lines := bufio.NewReader(results)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break // the process has ended
		}
		if err := p.take(bytes.TrimSpace(line)); err != nil {
			t.Errorf("a result of %s: %v", server, err)
		}
	}
	if err := cmd.Wait(); err != nil {
		const shown = 20_000
		text := output.Bytes()
		return fmt.Errorf("%w\n%s", err, text[max(0, len(text)-shown):])
	}
	return nil
}
