package gone

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lastcall/internal/procnet"
)

// kernel is a table of sockets that a test writes.
type kernel struct {
	t    *testing.T
	file string
}

func newKernel(t *testing.T) *kernel { return &kernel{t, filepath.Join(t.TempDir(), "tcp")} }

// shows makes the table hold listening sockets and connections, by port.
func (k *kernel) shows(listen, established, finWait2 []int) {
	k.t.Helper()
	var b strings.Builder
	b.WriteString("  sl  local_address rem_address   st\n")
	for state, ports := range map[int][]int{0x0A: listen} {
		for _, port := range ports {
			fmt.Fprintf(&b, "0: 00000000:%04X 00000000:0000 %02X\n", port, state)
		}
	}
	for state, ports := range map[int][]int{0x01: established, 0x05: finWait2} {
		for i, port := range ports {
			fmt.Fprintf(&b, "0: 0100007F:%04X 0100007F:%04X %02X\n", port, 40000+100*state+i, state)
		}
	}
	if err := os.WriteFile(k.file, []byte(b.String()), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

var errRefused = errors.New("connection refused")

func TestLeft(t *testing.T) {
	const page, app, tls, other = 8404, 8080, 8443, 9000
	for _, test := range []struct {
		name                          string
		before                        []int // listened on at the last good reading
		listen, established, finWait2 []int
		want                          int64
		wantErr                       string
	}{
		{name: "all is over", before: []int{page, app}, want: 0},
		{name: "never seen", want: 0},
		{name: "closed, and received", before: []int{page, app}, finWait2: []int{app, app}, want: 0},
		{name: "stopping, with work", before: []int{page, app}, established: []int{app, app}, want: 2},
		{name: "stopping, with work on a second port", before: []int{page, app, tls}, established: []int{tls}, want: 1},
		{name: "somebody still reads the page", before: []int{page, app}, established: []int{page}, want: 0},
		{
			name: "another program's port is no matter", before: []int{page, app, other},
			listen: []int{other}, established: []int{other, other}, want: 0,
		},
		{
			name: "the page is closed, the work goes on", before: []int{page, app},
			listen: []int{app}, wantErr: "port 8080 is listened on",
		},
		{name: "it is back", before: []int{page, app}, listen: []int{page, app}, wantErr: "listens there again"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := newKernel(t)
			p := &Proxy{Local: true, PagePort: page, AppPort: app, Sockets: procnet.Table{k.file}}
			if test.before != nil {
				k.shows(test.before, nil, nil)
				p.Readable()
			}
			k.shows(test.listen, test.established, test.finWait2)
			got, err := p.Left(errRefused)
			if test.wantErr == "" {
				if err != nil || got != test.want {
					t.Fatalf("got %d, %v, want %d", got, err, test.want)
				}
				return
			}
			if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), test.wantErr) {
				t.Fatalf("got %d, %v, want an error with %q", got, err, test.wantErr)
			}
		})
	}
}

func TestWhatCannotBeTold(t *testing.T) {
	k := newKernel(t)
	k.shows(nil, nil, nil)
	sockets := procnet.Table{k.file}
	for want, p := range map[string]*Proxy{
		"not in this pod":       {PagePort: 1, AppPort: 2, Sockets: sockets},
		"LASTCALL_APP_PORT":     {Local: true, PagePort: 1, Sockets: sockets},
		"/proc must be mounted": {Local: true, PagePort: 1, AppPort: 2, Sockets: procnet.Table{k.file + ".absent"}},
	} {
		p.Readable()
		got, err := p.Left(errRefused)
		if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %d, %v, want an error with %q", got, err, want)
		}
	}
}

func TestUnixSocketHasNoPort(t *testing.T) {
	k := newKernel(t)
	k.shows([]int{8099}, []int{8080}, nil)
	p := &Proxy{Local: true, AppPort: 8080, Sockets: procnet.Table{k.file}}
	if got, err := p.Left(errRefused); err != nil || got != 1 {
		t.Fatalf("got %d, %v, want 1", got, err)
	}
}
