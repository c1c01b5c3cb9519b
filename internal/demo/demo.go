// Package demo shows on one machine what Lastcall does. It rolls a Deployment of
// three pods twice, first without Lastcall and then with it, while clients that
// find the pods through a registry send requests.
//
// Everything that matters is real: the registry speaks Eureka's protocol, apps and
// sidecars are separate processes (of this program), the sidecars are configured by
// their environment, and the demo does what the kubelet does.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// scaledDown returns shorter times than in practice, so that the demo takes less
// than a minute. With Eureka's defaults, cache and clients take 30 s each.
func scaledDown() timing {
	return timing{
		pods:      3,
		clients:   12,
		shortest:  100 * time.Millisecond,
		longest:   3 * time.Second,
		think:     100 * time.Millisecond,
		cache:     time.Second,
		fetch:     1500 * time.Millisecond,
		refresh:   2 * time.Second,
		heartbeat: time.Second,
		grace:     30 * time.Second,
		endpoints: time.Second,
		quiet:     500 * time.Millisecond,
		calm:      2 * time.Second,
	}
}

// Run plays the demo and writes to out; if out is a terminal, it draws a picture.
// ok reports whether the result is as expected: no request failed with Lastcall,
// and every pod was drained. Run leaves no process and no file behind, and returns
// soon after ctx ends. The error says why the demo could not be played to its end.
//
// In the child processes that Run starts, which have a variable set, Run is an app.
func Run(ctx context.Context, out *os.File) (ok bool, err error) {
	if told := os.Getenv(appVariable); told != "" {
		var c appConfig
		if err := json.Unmarshal([]byte(told), &c); err != nil {
			return false, fmt.Errorf("%s: %w", appVariable, err)
		}
		logInJSON()
		return true, app(ctx, c)
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	s := &stage{timing: scaledDown(), appCommand: []string{self, "demo"}, sidecarCommand: []string{self, "serve"}}
	return s.play(ctx, newScreen(out, os.Getenv))
}

const (
	without = "without Lastcall"
	with    = "with Lastcall"
)

// play plays both acts, and prints their results.
func (s *stage) play(ctx context.Context, on *screen) (ok bool, err error) {
	if s.dir, err = volumes(); err != nil {
		return false, err
	}
	defer os.RemoveAll(s.dir) //nolint:errcheck // it is a temporary folder

	on.print(s.introduction())
	drawing, stop := context.WithCancel(context.WithoutCancel(ctx))
	drawn := make(chan struct{})
	go func() {
		defer close(drawn)
		on.run(drawing)
	}()
	first, err := s.act(ctx, on.act(without), false)
	var second result
	if err == nil {
		second, err = s.act(ctx, on.act(with), true)
	}
	stop()
	<-drawn
	if ctx.Err() != nil {
		return false, errors.New("stopped")
	}
	if err != nil {
		return false, err
	}
	on.print(s.summary(first, second))
	return len(second.failures) == 0, nil
}

// volumes creates a folder for the pods' volumes. In a container without /tmp, such
// as Lastcall's own, it uses memory that is writable anyway.
func volumes() (string, error) {
	var failed error
	for _, parent := range []string{os.TempDir(), "/dev/shm"} {
		dir, err := os.MkdirTemp(parent, "lastcall-demo-")
		if err == nil {
			return dir, nil
		}
		failed = errors.Join(failed, err)
	}
	return "", fmt.Errorf("making a folder for the pods' volumes: %w: set TMPDIR to a folder that can be written", failed)
}

func (s *stage) introduction() string {
	return fmt.Sprintf(`A Deployment of %d pods is rolled, without Lastcall and then with it. %d clients
find the pods through a Eureka registry, and send requests of %v to %v. On
SIGTERM each app does what it should: it deregisters and finishes its requests.
Scaled down: the registry renews its answers every %v, and clients ask every
%v, not every 30 s each. All is on 127.0.0.1; apps and sidecars are processes.`, s.pods, s.clients, s.shortest, s.longest, s.cache, s.fetch)
}

// summary compares both acts.
func (s *stage) summary(first, second result) string {
	var b strings.Builder
	b.WriteString("\n")
	row := func(cells ...any) { fmt.Fprintf(&b, "%-16s %8v %6v %9v %9v %9v %7v %7v\n", cells...) }
	row("", "requests", "failed", "gone in", "withdraw", "propagate", "drain", "stop")
	for _, r := range []result{first, second} {
		whole := mean(r.leavings, func(l leaving) (time.Duration, bool) { return l.whole, true })
		row(r.title, r.requests, len(r.failures), whole, r.meanOf(withdrawing), r.meanOf(propagating), r.meanOf(draining), r.meanOf(stopping))
	}
	fmt.Fprintf(&b, "(times are those of a pod, the mean of %d)\n\n", len(second.leavings))
	switch {
	case len(second.failures) > 0:
		fmt.Fprintf(&b, "%d of %d requests failed with Lastcall, the first by: %s. That should not be: please report it.", len(second.failures), second.requests, second.failures[0].err)
	case len(first.failures) == 0:
		fmt.Fprintf(&b, "No request failed with Lastcall, and this time none without it either.")
	default:
		fmt.Fprintf(&b, "%d of %d requests failed without Lastcall (%s),\nnone of %d with it.", len(first.failures), first.requests, commonest(first.failures), second.requests)
	}
	return b.String()
}

func (r result) meanOf(p phase) string {
	return mean(r.leavings, func(l leaving) (time.Duration, bool) {
		d, ok := l.phases[p]
		return d, ok
	})
}

// mean returns the mean of the values that of returns, or "-" if there is none.
func mean(leavings []leaving, of func(leaving) (time.Duration, bool)) string {
	var sum time.Duration
	n := 0
	for _, l := range leavings {
		if d, ok := of(l); ok {
			sum += d
			n++
		}
	}
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f s", (sum / time.Duration(n)).Seconds())
}

// commonest returns the most frequent error, without the address in it.
func commonest(failures []failure) string {
	counts, most := map[string]int{}, ""
	for _, f := range failures {
		text := f.err[strings.LastIndex(f.err, ": ")+1:]
		if counts[text]++; counts[text] > counts[most] {
			most = text
		}
	}
	return strings.TrimSpace(most)
}
