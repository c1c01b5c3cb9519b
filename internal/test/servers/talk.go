package servers

import (
	"bufio"
	"io"
	"os/exec"
	"testing"
)

// Talk starts cmd, and returns its standard input and output. The caller must end
// it: these programs end when their input is closed.
func Talk(t testing.TB, cmd *exec.Cmd) (in io.WriteCloser, out *bufio.Reader) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	from, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return in, bufio.NewReader(from)
}
