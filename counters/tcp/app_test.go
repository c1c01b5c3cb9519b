package tcp

import (
	"testing"

	"lastcall/internal/procnet"
)

func TestListeningOnOneOfSeveralPorts(t *testing.T) {
	first, second := listenOn(t, "127.0.0.1:0"), listenOn(t, "[::1]:0")
	ports := []int{first.port, second.port, 1}
	listens := func(want bool) {
		t.Helper()
		if got, err := NewApp(ports...).Listening(t.Context()); err != nil || got != want {
			t.Errorf("listening is %v, %v, want %v", got, err, want)
		}
		if got, err := NewApp(ports...).listeningByTable(); err != nil || got != want {
			t.Errorf("by /proc/net/tcp listening is %v, %v, want %v", got, err, want)
		}
	}
	listens(true)
	first.Close()
	listens(true) // it may still be at work
	second.Close()
	listens(false)

	app := NewApp(ports...)
	app.table = procnet.Table{t.TempDir()}
	if _, err := app.listeningByTable(); err == nil {
		t.Error("a table that cannot be read gave no error")
	}
}
