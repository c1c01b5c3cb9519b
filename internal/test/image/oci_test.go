//go:build linux

package image

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// image is an image that is unpacked to a folder, as on a node.
type image struct {
	rootfs string
	config imageConfig
	files  []string // without folders, sorted, with a leading slash
	size   int64    // of all files, in bytes
}

// The parts of the OCI image format that this test reads.
type (
	descriptor struct {
		Digest string `json:"digest"`
	}
	index struct {
		Manifests []descriptor `json:"manifests"`
	}
	manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	imageConfig struct {
		User         string
		Env          []string
		Entrypoint   []string
		Cmd          []string
		ExposedPorts map[string]struct{}
		Labels       map[string]string
	}
)

// unpack reads the one image of an OCI layout.
func unpack(t *testing.T, layout string) *image {
	t.Helper()
	blob := func(d descriptor) string {
		return filepath.Join(layout, "blobs", strings.Replace(d.Digest, ":", "/", 1))
	}
	var i index
	readJSON(t, filepath.Join(layout, "index.json"), &i)
	if len(i.Manifests) != 1 {
		t.Fatalf("%s holds %d images, want 1", layout, len(i.Manifests))
	}
	var m manifest
	readJSON(t, blob(i.Manifests[0]), &m)
	var c struct {
		Config imageConfig `json:"config"`
	}
	readJSON(t, blob(m.Config), &c)

	unpacked := &image{rootfs: filepath.Join(t.TempDir(), "rootfs"), config: c.Config}
	for _, layer := range m.Layers {
		unpacked.add(t, blob(layer))
	}
	sort.Strings(unpacked.files)
	return unpacked
}

// add unpacks one layer. It supports folders and plain files; the Dockerfile makes
// nothing else.
func (i *image) add(t *testing.T, layer string) {
	t.Helper()
	file, err := os.Open(layer)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	packed, err := gzip.NewReader(file)
	if err != nil {
		t.Fatalf("%s: %v", layer, err)
	}
	for entries := tar.NewReader(packed); ; {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", layer, err)
		}
		path := filepath.Join(i.rootfs, entry.Name)
		switch entry.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, entry.FileInfo().Mode().Perm())
		case tar.TypeReg:
			i.files = append(i.files, "/"+filepath.Clean(entry.Name))
			i.size += entry.Size
			err = writeFile(path, entries, entry.FileInfo().Mode().Perm())
		default:
			t.Fatalf("%s: %s is neither a file nor a folder", layer, entry.Name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func writeFile(path string, content io.Reader, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
