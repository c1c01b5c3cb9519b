package termination

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"lastcall/drain"
)

// message creates a file as the kubelet does, with the text before in it.
func message(t *testing.T, before string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "termination-log")
	if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// says returns the content of the file at path, once all is written.
func says(t *testing.T, f *File, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f.Flush(ctx)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func happens(eventType drain.EventType, text string) drain.Event {
	return drain.Event{Type: eventType, At: time.Date(2026, 11, 21, 11, 0, 1, 5e8, time.FixedZone("", 3600)), Text: text}
}

func TestADrainIsWritten(t *testing.T) {
	path := message(t, "")
	f := New(path)
	if got := says(t, f, path); got != "" {
		t.Errorf("while nothing happens: %q", got)
	}
	f.Observe(happens(drain.EventDraining, "the pod leaves"))
	if got := says(t, f, path); got != "2026-11-21T10:00:01Z Draining: the pod leaves\n" {
		t.Errorf("at its beginning: %q", got)
	}
	f.Observe(happens(drain.EventExpired, "the budget of 25s ended,\nwaiting for 3 requests"))
	if got := says(t, f, path); got != "2026-11-21T10:00:01Z Draining: the pod leaves\n"+
		"2026-11-21T10:00:01Z DrainExpired: the budget of 25s ended, waiting for 3 requests\n" {
		t.Errorf("at its end: %q", got)
	}
}

// The message is that of the last drain. No part of an earlier, longer message
// remains.
func TestADrainReplacesTheOneBefore(t *testing.T) {
	path := message(t, strings.Repeat("old ", 500))
	f := New(path)
	for _, kind := range []drain.EventType{drain.EventDraining, drain.EventWithdrawn, drain.EventTakenBack, drain.EventDraining} {
		f.Observe(happens(kind, "so it is"))
	}
	if got := says(t, f, path); got != "2026-11-21T10:00:01Z Draining: so it is\n" {
		t.Errorf("%q", got)
	}
}

// The kubelet keeps the last 4096 bytes of the file: the last lines are kept, and
// whole.
func TestItIsBounded(t *testing.T) {
	path := message(t, "")
	f := New(path)
	for i := range 500 {
		f.Observe(happens(drain.EventUnreachable, fmt.Sprintf("call %d fails: %s", i, strings.Repeat("ä", 5*i))))
	}
	got := says(t, f, path)
	if len(got) > Limit || len(got) < Limit/2 || !utf8.ValidString(got) {
		t.Errorf("%d bytes", len(got))
	}
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	for i, line := range lines {
		if want := fmt.Sprintf("2026-11-21T10:00:01Z RegistryUnreachable: call %d fails: ä", 500-len(lines)+i); !strings.HasPrefix(line, want) {
			t.Errorf("line %d begins %.80q, want %q", i, line, want)
		}
	}
}

func TestWriteIsBounded(t *testing.T) {
	path := message(t, "")
	if err := Write(path, "x"+strings.Repeat("ä", Limit)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || len(got) != Limit-1 || !utf8.Valid(got) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// If the kubelet has not created a file, none is created, and nothing is logged.
func TestWithoutAKubelet(t *testing.T) {
	log := logged(t)
	path := filepath.Join(t.TempDir(), "termination-log")
	f := New(path)
	f.Observe(happens(drain.EventDraining, "the pod leaves"))
	f.Flush(t.Context())
	if _, err := os.Lstat(path); err == nil {
		t.Error("a file was made")
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", log)
	}
}

func TestAFileThatCannotBeWritten(t *testing.T) {
	log := logged(t)
	f := New(t.TempDir()) // a folder
	for range 3 {
		f.Observe(happens(drain.EventDraining, "the pod leaves"))
		f.Flush(t.Context())
	}
	if text := log.String(); strings.Count(text, "cannot be written") != 1 || !strings.Contains(text, "is a directory") {
		t.Errorf("logged %s", text)
	}
}

// A file that blocks does not delay anyone for longer than the limit.
func TestAFileThatHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "termination-log")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f := New(path)
	f.Observe(happens(drain.EventDraining, "the pod leaves")) // nothing reads it
	f.Observe(happens(drain.EventExpired, "the budget ended"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.Flush(ctx)
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	f.Flush(t.Context())
}

// Any number of goroutines may call Observe, and the file then holds what they
// wrote.
func TestManyAtOnce(t *testing.T) {
	path := message(t, "")
	synctest.Test(t, func(t *testing.T) {
		f := New(path)
		var tellers sync.WaitGroup
		for range 20 {
			tellers.Go(func() { f.Observe(happens(drain.EventWithdrawn, "gone")) })
		}
		tellers.Wait()
		if got := says(t, f, path); strings.Count(got, "\n") != 20 {
			t.Errorf("%q", got)
		}
	})
}

// logged collects the log.
func logged(t *testing.T) *bytes.Buffer {
	t.Helper()
	var log bytes.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(was) })
	return &log
}
