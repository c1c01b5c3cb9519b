package webhook

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"lastcall/admission/inject"
)

const (
	mostFiles   = 200
	largestFile = 64 << 10
)

// ReadFolder returns a function that reads the parameters from a folder in which a
// ConfigMap is mounted, with a file for each key. The function reads the files at each
// call, so a change needs no restart.
func ReadFolder(folder string) func() (inject.Parameters, error) {
	return func() (inject.Parameters, error) {
		entries, err := os.ReadDir(folder)
		if err != nil {
			return inject.Parameters{}, fmt.Errorf("reading the parameters: %w: mount the ConfigMap lastcall-injection there", err)
		}
		data := map[string]string{}
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), "..") { // created by the kubelet
				continue
			}
			if len(data) == mostFiles {
				return inject.Parameters{}, fmt.Errorf("reading the parameters: %s holds more than %d files", folder, mostFiles)
			}
			value, err := readFile(filepath.Join(folder, entry.Name()))
			if err != nil {
				return inject.Parameters{}, fmt.Errorf("reading the parameters: %w", err)
			}
			data[entry.Name()] = value
		}
		p, err := inject.ParseParameters(data)
		if err != nil {
			return p, fmt.Errorf("the parameters in %s: %w", folder, err)
		}
		return p, nil
	}
}

func readFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // opened for reading: an error does not matter
	text, err := io.ReadAll(io.LimitReader(f, largestFile+1))
	if err == nil && len(text) > largestFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, largestFile)
	}
	return string(text), err
}
