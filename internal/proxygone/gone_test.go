package proxygone

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// kernel is a table of sockets that tests can set.
type kernel struct {
	listen, open []int // ports
	err          error
}

func (k *kernel) Listeners() (map[int]bool, error) {
	ports := make(map[int]bool)
	for _, port := range k.listen {
		ports[port] = true
	}
	return ports, k.err
}

func (k *kernel) Unfinished(port int) (map[string]bool, error) {
	remotes := make(map[string]bool)
	for i, open := range k.open {
		if open == port {
			remotes[fmt.Sprint(i)] = true
		}
	}
	return remotes, k.err
}

var errRefused = errors.New("connection refused")

func TestLeft(t *testing.T) {
	const page, app, tls, other = 8404, 8080, 8443, 9000
	for _, test := range []struct {
		name         string
		before       []int // ports with listeners while the page was readable
		listen, open []int // ports with listeners, and ports with open connections, now
		want         int64
		wantErr      string
	}{
		{name: "all is over", before: []int{page, app}, want: 0},
		{name: "never seen", want: 0},
		{name: "stopping, with work", before: []int{page, app}, open: []int{app, app}, want: 2},
		{name: "stopping, with work on a second port", before: []int{page, app, tls}, open: []int{tls}, want: 1},
		{name: "somebody still reads the page", before: []int{page, app}, open: []int{page}, want: 0},
		{
			name: "another program's port is no matter", before: []int{page, app, other},
			listen: []int{other}, open: []int{other, other}, want: 0,
		},
		{
			name: "the page is closed, the work goes on", before: []int{page, app},
			listen: []int{app}, wantErr: "port 8080 has a listener",
		},
		{name: "it is back", before: []int{page, app}, listen: []int{page, app}, wantErr: "listens there again"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := &kernel{}
			p := &Proxy{Local: true, PagePort: page, AppPorts: []int{app}, Sockets: k}
			if test.before != nil {
				k.listen = test.before
				p.Readable()
				// The proxy closes its ports one after the other.
				k.listen = test.before[1:]
				p.Readable() // over a connection that was already open
				if got, err := p.Left(errRefused); !errors.Is(err, errRefused) {
					t.Fatalf("got %d, %v while ports are being closed", got, err)
				}
				k.listen = test.listen
				if got, err := p.Left(errRefused); !errors.Is(err, errRefused) {
					t.Fatalf("got %d, %v when ports have just been closed", got, err)
				}
			}
			k.open = test.open
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
	for want, p := range map[string]*Proxy{
		"not in this pod":   {PagePort: 1, AppPorts: []int{2}, Sockets: &kernel{}},
		"LASTCALL_APP_PORT": {Local: true, PagePort: 1, Sockets: &kernel{}},
		"no /proc":          {Local: true, PagePort: 1, AppPorts: []int{2}, Sockets: &kernel{err: errors.New("no /proc")}},
	} {
		p.Readable()
		got, err := p.Left(errRefused)
		if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %d, %v, want an error with %q", got, err, want)
		}
	}
}

func TestErrorsNameTheProgram(t *testing.T) {
	for what, p := range map[string]*Proxy{
		"whether the app is gone":   {What: "the app"},
		"whether the proxy is gone": {},
	} {
		if _, err := p.Left(errRefused); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want %q", err, what)
		}
	}
}

func TestUnixSocketHasNoPort(t *testing.T) {
	p := &Proxy{Local: true, AppPorts: []int{8080}, Sockets: &kernel{listen: []int{8099}, open: []int{8080}}}
	if got, err := p.Left(errRefused); err != nil || got != 1 {
		t.Fatalf("got %d, %v, want 1", got, err)
	}
}
