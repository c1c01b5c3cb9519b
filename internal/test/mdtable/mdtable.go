// Package mdtable writes measured tables into Markdown files, between two
// markers that name the command which measures them.
package mdtable

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// ErrNoMarkers is the error of a file that lacks the markers.
var ErrNoMarkers = errors.New("lacks the markers between which this is written")

// Markers are those between which a command writes the table of a name.
func Markers(command, name string) (begin, end string) {
	return "<!-- " + command + " writes the " + name + " from here -->\n", "<!-- the " + name + " to here -->\n"
}

// Write replaces what a file has between the markers. It is ErrNoMarkers if the
// file does not have both, which leaves it as it is.
func Write(file, command, name, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := Markers(command, name)
	before, rest, found := strings.Cut(string(old), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s %w: %s", file, ErrNoMarkers, name)
	}
	return os.WriteFile(file, []byte(before+begin+"\n"+text+"\n"+end+after), 0o644)
}
