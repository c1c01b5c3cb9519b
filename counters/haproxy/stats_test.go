package haproxy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recorded returns a recorded answer of a real HAProxy 2.6.12.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	got, err := parse(recorded(t, "page.csv"))
	want := []frontend{
		{name: "web", http: true, conns: 3, opened: 3, muxed: 3, streams: 2, total: 9, itself: 1},
		{name: "raw", conns: 1, opened: 1, total: 1},
		{name: "stats", http: true, conns: 1, opened: 1, muxed: 1, streams: 1, total: 2, itself: 2},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	// A socket's answer contains only frontends.
	if got, err := parse(recorded(t, "socket.csv")); err != nil || len(got) != 3 {
		t.Fatalf("got %+v, %v, want 3 frontends", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	page := string(recorded(t, "page.csv"))
	head, _, _ := strings.Cut(page, "\n")
	for name, bad := range map[string]string{
		"nothing":           "",
		"HTML":              "<!DOCTYPE HTML PUBLIC>\n<html><head><title>Statistics Report for HAProxy</title>",
		"cut short":         page[:len(page)-100],
		"a heading alone":   head + "\n",
		"an old HAProxy":    strings.ReplaceAll(page, "h1_open_streams", "other"),
		"a negative number": strings.Replace(page, "web,FRONTEND,,,3,", "web,FRONTEND,,,-3,", 1),
		"a huge number":     strings.Replace(page, "web,FRONTEND,,,3,", "web,FRONTEND,,,18446744073709551615,", 1),
		"no number":         strings.Replace(page, "web,FRONTEND,,,3,", "web,FRONTEND,,,,", 1),
		"a missing column":  strings.Replace(page, "web,FRONTEND,,,3,", "web,FRONTEND,,3,", 1),
	} {
		if got, err := parse([]byte(bad)); err == nil {
			t.Errorf("%s was read as %+v", name, got)
		}
	}
}

func TestWhatAFrontendCounts(t *testing.T) {
	for name, test := range map[string]struct {
		f        frontend
		inFlight int64
		itself   bool
	}{
		"idle connections":       {frontend{http: true, conns: 5, muxed: 5, total: 9}, 0, false},
		"requests":               {frontend{http: true, conns: 5, muxed: 5, streams: 2, total: 9}, 2, false},
		"many on one connection": {frontend{http: true, conns: 1, muxed: 1, streams: 50, total: 50}, 50, false},
		"in handshake":           {frontend{http: true, conns: 3, muxed: 1}, 2, false},
		"between two numbers":    {frontend{http: true, conns: 1, muxed: 2, streams: 1}, 1, false},
		"TCP":                    {frontend{conns: 4, total: 4}, 4, false},
		"statistics":             {frontend{http: true, conns: 1, muxed: 1, streams: 1, total: 7, itself: 7}, 1, true},
		"new":                    {frontend{http: true}, 0, false},
	} {
		if got := test.f.inFlight(); got != test.inFlight {
			t.Errorf("%s: in flight %d, want %d", name, got, test.inFlight)
		}
		if got := test.f.answersItself(); got != test.itself {
			t.Errorf("%s: answers itself is %v, want %v", name, got, test.itself)
		}
	}
}

func TestParseProc(t *testing.T) {
	got, err := parseProc(recorded(t, "proc.txt"))
	if err != nil || len(got) != 2 {
		t.Fatalf("got %v, %v, want the worker and the old one", got, err)
	}
	for _, bad := range []string{"", "Unknown command\n", "#<PID> <type>\n", "#<PID> <type>\nx worker\n"} {
		if got, err := parseProc([]byte(bad)); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}

func TestParsePid(t *testing.T) {
	if got, err := parsePid(recorded(t, "info.txt")); err != nil || got < 1 {
		t.Fatalf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "Pid:\n", "Pid: x\n", "Pid: -1\n"} {
		if got, err := parsePid([]byte(bad)); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(recorded(f, "page.csv"))
	f.Add(recorded(f, "socket.csv"))
	f.Add([]byte("# pxname,svname,\n\"a\nb\",FRONTEND,\n"))
	f.Fuzz(func(t *testing.T, page []byte) {
		frontends, err := parse(page)
		if err == nil && len(frontends) == 0 {
			t.Fatal("nothing was read, and no error")
		}
		for _, one := range frontends {
			if one.inFlight() < 0 || one.arrived() > one.total {
				t.Fatalf("%+v", one)
			}
		}
	})
}

func FuzzParseProc(f *testing.F) {
	f.Add(recorded(f, "proc.txt"))
	f.Add([]byte("#<PID> <type>\n1 master\n2 worker\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		pids, err := parseProc(answer)
		for _, pid := range pids {
			if err != nil || pid < 0 {
				t.Fatalf("%v, %v", pids, err)
			}
		}
	})
}

func FuzzParsePid(f *testing.F) {
	f.Add(recorded(f, "info.txt"))
	f.Add([]byte("Pid: 1\n"))
	f.Fuzz(func(t *testing.T, info []byte) {
		if pid, err := parsePid(info); err == nil && pid < 0 {
			t.Fatal(pid)
		}
	})
}
