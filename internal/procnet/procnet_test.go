package procnet

import (
	"bytes"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// sockets is an example of the kernel's output. Port 8080 (1F90) has a listener,
// and a connection in each state that matters. Port 443 (01BB) no longer has a
// listener.
const sockets = heading +
	"   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7001 1 0 100 0 0 10 0\n" +
	"   1: 0100007F:1F93 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7002 1 0 100 0 0 10 0\n" +
	"   2: 0100007F:1F90 0100007F:D001 01 00000000:00000000 00:00000000 00000000     0        0 7003 1 0 100 0 0 10 0\n" +
	"   3: 0100007F:1F90 0100007F:D002 04 00000005:00000000 00:00000000 00000000     0        0 0 1 0 100 0 0 10 0\n" +
	"   4: 0100007F:1F90 0100007F:D003 05 00000000:00000000 03:00000EF2 00000000     0        0 0 3 0\n" +
	"   5: 0100007F:1F90 0100007F:D004 06 00000000:00000000 03:00000EF2 00000000     0        0 0 3 0\n" +
	"   6: 0100007F:1F90 0100007F:D005 08 00000000:00000000 00:00000000 00000000     0        0 7004 1 0 100 0 0 10 0\n" +
	"   7: 0100007F:1F90 0100007F:D006 03 00000000:00000000 00:00000000 00000000     0        0 0 1 0\n" +
	"   8: 0100007F:01BB 0100007F:D007 01 00000000:00000000 00:00000000 00000000     0        0 7005 1 0 100 0 0 10 0\n" +
	"   9: 0100007F:D001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 7006 1 0 100 0 0 10 0\n"

const sockets6 = heading +
	"   0: 00000000000000000000000000000000:270F 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 7007 1\n" +
	"   1: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:D001 01 00000000:00000000 00:00000000 00000000 0 0 7008 1\n"

func table(t *testing.T, files ...string) Table {
	t.Helper()
	var all Table
	for _, content := range files {
		name := filepath.Join(t.TempDir(), "tcp")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, name)
	}
	return all
}

func TestTable(t *testing.T) {
	both := table(t, sockets, sockets6)
	if got, err := both.Listeners(); err != nil || !maps.Equal(got, map[int]bool{8080: true, 8083: true, 9999: true}) {
		t.Errorf("listeners: %v, %v", got, err)
	}
	if got, err := both.ListeningSockets(); err != nil || !maps.EqualFunc(got, map[int][]uint64{8080: {7001}, 8083: {7002}, 9999: {7007}}, slices.Equal) {
		t.Errorf("listening sockets: %v, %v", got, err)
	}
	got, err := both.Unfinished(8080)
	want := []string{"0000000000000000FFFF00000100007F:D001", "0100007F:D001", "0100007F:D002", "0100007F:D005"}
	if names := slices.Sorted(maps.Keys(got)); err != nil || !slices.Equal(names, want) {
		t.Errorf("unfinished: %v, %v, want %v", names, err, want)
	}
	if got, err := both.Unfinished(443); err != nil || len(got) != 1 {
		t.Errorf("unfinished on 443: %v, %v", got, err)
	}
}

func TestNoIPv6(t *testing.T) {
	one := append(table(t, sockets), filepath.Join(t.TempDir(), "absent"))
	if got, err := one.Listeners(); err != nil || !got[8080] {
		t.Fatalf("got %v, %v", got, err)
	}
}

func TestASocketWithoutANumber(t *testing.T) {
	for _, line := range []string{"0: 0100007F:1F90 0: 0A\n", "0: 0100007F:1F90 0: 0A 4 5 6 7 8 number\n"} {
		if got, err := table(t, heading+line).ListeningSockets(); err != nil || !slices.Equal(got[8080], []uint64{0}) {
			t.Errorf("%q: got %v, %v", line, got, err)
		}
	}
}

func TestUnreadableIsAnError(t *testing.T) {
	for name, bad := range map[string]Table{
		"no file is there": {filepath.Join(t.TempDir(), "absent")},
		"a folder":         {t.TempDir()},
		"no fields":        table(t, heading+"garbage\n"),
		"no port":          table(t, heading+"0: 0100007F 0: 0A\n"),
		"no state":         table(t, heading+"0: 0100007F:1F90 0: ZZ\n"),
		"an endless line":  table(t, heading+strings.Repeat("x", 1<<20)),
	} {
		if _, err := bad.Listeners(); err == nil {
			t.Errorf("%s: Listeners gave no error", name)
		}
		if _, err := bad.ListeningSockets(); err == nil {
			t.Errorf("%s: ListeningSockets gave no error", name)
		}
		if _, err := bad.Unfinished(8080); err == nil {
			t.Errorf("%s: Unfinished gave no error", name)
		}
	}
}

func TestTheKernelsOwnTable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ports, err := Kernel().Listeners()
	if err != nil || !ports[port] {
		t.Fatalf("listening on %d is not seen: %v, %v", port, ports, err)
	}
	l.Close()
	if ports, err = Kernel().Listeners(); err != nil || ports[port] {
		t.Fatalf("still listening on %d: %v", port, err)
	}
	if open, err := Kernel().Unfinished(port); err != nil || len(open) != 1 {
		t.Fatalf("the connection is not seen: %v, %v", open, err)
	}
	server.Close() // the client does not close its half
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection was not closed")
	}
	tick, deadline := time.NewTicker(time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for { // until the client's kernel has acknowledged the close
		open, err := Kernel().Unfinished(port)
		if err == nil && len(open) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("a connection that its server has closed is still seen: %v, %v", open, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sockets))
	f.Add([]byte(sockets6))
	f.Add([]byte(heading + "0: :1 : 0A\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		lines := bytes.Count(file, []byte("\n")) + 1
		seen := 0
		_ = parse(bytes.NewReader(file), func(s socket) bool {
			seen++
			if s.port < 0 || s.port > 65535 {
				t.Fatalf("port %d", s.port)
			}
			return true
		})
		if seen > lines {
			t.Fatalf("%d sockets in %d lines", seen, lines)
		}
	})
}
