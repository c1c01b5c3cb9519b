package mdtable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "benchmarks.md")
	begin, end := Markers("make bench", "figures")
	if err := os.WriteFile(file, []byte("# Figures\n"+begin+"old\n"+end+"The end.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "# Figures\n" + begin + "\n| new |\n\n" + end + "The end.\n"
	for range 2 { // Write can replace its own text
		if err := Write(file, "make bench", "figures", "| new |\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	for _, text := range []string{"", "# Figures\n" + begin, end, end + begin} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Write(file, "make bench", "figures", "| new |\n"); !errors.Is(err, ErrNoMarkers) {
			t.Errorf("with the markers %q: %v, want %v", text, err, ErrNoMarkers)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != text {
			t.Errorf("the file was changed to %q, %v", got, err)
		}
	}
}
