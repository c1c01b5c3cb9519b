package file

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is how many symbolic links the kernel follows in one path.
const maxLinks = 40

// trail describes where a change can affect what a path leads to.
type trail struct {
	// names holds the directories through which the path is resolved, and the
	// names that are looked up in each.
	names map[string]map[string]bool
	// last is the directory in which the path ends: the file's directory, or
	// the folder itself, or the directory in which the next step is missing.
	last string
}

// inside stands for every name in a directory: the path leads to a folder.
const inside = ""

// follow resolves path as the kernel does, link by link, as far as it exists.
func follow(path string) trail {
	t := trail{names: map[string]map[string]bool{}}
	dir, rest, links := "/", split(path), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			dir = filepath.Dir(dir)
			continue
		}
		t.add(dir, name)
		full := filepath.Join(dir, name)
		info, err := os.Lstat(full)
		switch {
		case err != nil:
			return t // it does not exist yet: it will appear in dir
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(full)
			if links++; err != nil || links > maxLinks {
				return t
			}
			if filepath.IsAbs(target) {
				dir = "/"
			}
			rest = append(split(target), rest...)
		case info.IsDir():
			dir = full
		default:
			return t
		}
	}
	t.add(dir, inside)
	return t
}

// split returns the steps of a path. It does not shorten `link/..`, which leads
// to the parent of what the link points to.
func split(path string) []string {
	var steps []string
	for step := range strings.SplitSeq(path, "/") {
		if step != "" && step != "." {
			steps = append(steps, step)
		}
	}
	return steps
}

func (t *trail) add(dir, name string) {
	if t.names[dir] == nil {
		t.names[dir] = map[string]bool{}
	}
	t.names[dir][name] = true
	t.last = dir
}

// leads reports whether the path leads to, or through, the entry name of dir.
func (t trail) leads(dir, name string) bool {
	names := t.names[dir]
	return names[name] || names[inside] && !ignored(name)
}

func (t trail) equal(other trail) bool {
	return t.last == other.last && maps.EqualFunc(t.names, other.names, maps.Equal[map[string]bool, map[string]bool])
}
