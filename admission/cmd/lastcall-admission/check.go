package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lastcall/admission/check"
	"lastcall/admission/inject"
)

const (
	mostFiles   = 10_000
	largestFile = 32 << 20
)

func checkFiles(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("lastcall-admission check", flag.ContinueOnError)
	flags.SetOutput(stderr)
	output := flags.String("o", "text", "`format`: text or json")
	kubernetes := flags.String("kubernetes-version", "", "the cluster's `version`, such as 1.28")
	names, err := parse(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		return good
	}
	minor, wrong := minorOf(*kubernetes)
	if *output != "text" && *output != "json" {
		wrong = errors.Join(wrong, fmt.Errorf("-o %s: must be text or json", *output))
	}
	if len(names) == 0 {
		wrong = errors.Join(wrong, errors.New("name a file, a folder, or - for standard input"))
	}
	if err != nil || wrong != nil {
		fmt.Fprintln(stderr, "lastcall-admission check:", errors.Join(err, wrong))
		return misused
	}
	objects, err := readAll(names, stdin)
	found := check.Objects(objects, check.Options{Minor: minor, Parameters: inject.Parameters{}})
	if *output == "json" {
		err = errors.Join(err, printJSON(stdout, found))
	} else {
		printText(stdout, found)
	}
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "lastcall-admission check:", err)
		return misused
	case len(found) > 0:
		return findings
	default:
		return good
	}
}

// parse parses args and returns the file names. Flags may stand before, between and
// after the file names.
func parse(flags *flag.FlagSet, args []string) (names []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return names, err
		}
		if args = flags.Args(); len(args) == 0 {
			return names, nil
		}
		names, args = append(names, args[0]), args[1:]
	}
}

// minorOf returns the minor version: 28 for 1.28, v1.28 and v1.28.3, and 0 for an
// empty version.
func minorOf(version string) (int, error) {
	if version == "" {
		return 0, nil
	}
	rest, ok := strings.CutPrefix(strings.TrimPrefix(version, "v"), "1.")
	minor, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(minor)
	if !ok || err != nil || n < 1 {
		return 0, fmt.Errorf("-kubernetes-version %s: must be like 1.28", version)
	}
	return n, nil
}

func printText(w io.Writer, found []check.Finding) {
	for _, f := range found {
		fmt.Fprintln(w, f)
		for line := range strings.SplitSeq(f.Fix, "\n") {
			fmt.Fprintln(w, "    "+line)
		}
	}
}

func printJSON(w io.Writer, found []check.Finding) error {
	if found == nil {
		found = []check.Finding{}
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(found)
}

// readAll returns the objects of all readable files, and the errors of the others.
func readAll(names []string, stdin io.Reader) (objects []check.Object, err error) {
	var wrong []error
	take := func(name string, r io.Reader) {
		text, err := io.ReadAll(io.LimitReader(r, largestFile+1))
		if err == nil && len(text) > largestFile {
			err = fmt.Errorf("reading %s: it is larger than %d bytes", name, largestFile)
		}
		var some []check.Object
		if err == nil {
			some, err = check.Read(name, text)
		}
		objects = append(objects, some...)
		wrong = append(wrong, err)
	}
	for _, name := range names {
		if name == "-" {
			take("-", stdin)
			continue
		}
		files, err := list(name)
		wrong = append(wrong, err)
		for _, file := range files {
			text, err := os.ReadFile(file) //nolint:gosec // the user of the command chooses the files
			if err != nil {
				wrong = append(wrong, err)
				continue
			}
			take(file, bytes.NewReader(text))
		}
	}
	return objects, errors.Join(wrong...)
}

// list returns name itself if it is a file, or the manifests in the folder and its
// subfolders.
func list(name string) (files []string, err error) {
	err = filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error { //nolint:gosec // the user of the command chooses the files
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != name && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir():
			return nil
		case path != name && !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)):
			return nil
		case len(files) == mostFiles:
			return fmt.Errorf("%s holds more than %d files", name, mostFiles)
		}
		files = append(files, path)
		return nil
	})
	return files, err
}
