// Package mdtable writes measured tables into Markdown files, between two markers
// that name the command that measures them.
package mdtable

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// ErrNoMarkers means that a file lacks the markers.
var ErrNoMarkers = errors.New("lacks the markers for the table")

// Markers returns the markers between which a command writes the table called name.
func Markers(command, name string) (begin, end string) {
	return "<!-- " + command + " writes the " + name + " from here -->\n", "<!-- the " + name + " to here -->\n"
}

// Write replaces the text between a file's markers. If the file does not have both,
// it returns ErrNoMarkers and leaves the file unchanged.
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
