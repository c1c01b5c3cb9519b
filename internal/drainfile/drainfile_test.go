package drainfile

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFile(t *testing.T) {
	ctx, folder := context.Background(), t.TempDir()
	path := filepath.Join(folder, "draining")
	f, err := New(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // all of it twice: a drain may be taken back, and begin again
		for range 2 { // both calls are idempotent
			if err := f.Post(ctx); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := time.Parse(time.RFC3339, strings.TrimSpace(string(text))); err != nil {
			t.Errorf("it holds %q: %v", text, err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("the app may not read it: %v, %v", info, err)
		}
		for range 2 {
			if err := f.Remove(ctx); err != nil {
				t.Fatal(err)
			}
		}
		left, err := os.ReadDir(folder)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	if _, err := New("draining"); err == nil || !strings.Contains(err.Error(), "LASTCALL_DRAINING_FILE") {
		t.Errorf("a relative path: %v", err)
	}
	ctx, folder := context.Background(), t.TempDir()
	for name, path := range map[string]string{
		"no folder":       filepath.Join(folder, "none", "draining"),
		"a folder itself": folder,
	} {
		f, err := New(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Post(ctx); err == nil || !strings.Contains(err.Error(), "LASTCALL_DRAINING_FILE") {
			t.Errorf("%s: %v", name, err)
		}
	}
	left, err := os.ReadDir(filepath.Dir(folder))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
