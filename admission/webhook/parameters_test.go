package webhook_test

import (
	"os"
	"path/filepath"
	"testing"

	"lastcall/admission/webhook"
)

// A mounted ConfigMap is a folder with a file for each key, and with symbolic links
// created by the kubelet. A change takes effect at once.
func TestReadFolder(t *testing.T) {
	dir := t.TempDir()
	read := webhook.ReadFolder(dir)
	if _, err := read(); err == nil {
		t.Error("an empty folder has no image, and is accepted")
	}
	write := func(name, value string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "..2026_11_28"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("image", "lastcall:1")
	write("LASTCALL_REGISTRIES", "consul")
	p, err := read()
	if err != nil || p.Image != "lastcall:1" || p.Defaults["LASTCALL_REGISTRIES"] != "consul" {
		t.Errorf("read %+v, %v", p, err)
	}
	write("image", "lastcall:2")
	if p, err := read(); err != nil || p.Image != "lastcall:2" {
		t.Errorf("after the change: %+v, %v", p, err)
	}
	write("imagePullPolicy", string(make([]byte, 100<<10)))
	if _, err := read(); err == nil {
		t.Error("a file of 100 KiB is read")
	}
	if _, err := webhook.ReadFolder(filepath.Join(dir, "gone"))(); err == nil {
		t.Error("a folder that is not there is read")
	}
}
