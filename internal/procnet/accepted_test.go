package procnet

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestAccepted(t *testing.T) {
	s := KernelStatistics()
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		before, err := s.Accepted()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		for range 3 {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			accepted, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { accepted.Close() })
		}
		// Other tests may run in the same namespace.
		if after, err := s.Accepted(); err != nil || after < before+3 {
			t.Fatalf("%s: got %d, %v, want %d at least", address, after, err, before+3)
		}
	}
}

// statistics is a part of the kernel's output.
const statistics = "Ip: Forwarding DefaultTTL\nIp: 1 64\n" +
	"Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails\n" +
	"Tcp: 1 200 120000 -1 633154 520076 112692\nUdp: InDatagrams\nUdp: 7\n"

func TestStatistics(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		text string
		want uint64
		bad  bool
	}{
		"the kernel's":     {text: statistics, want: 520076},
		"nothing":          {bad: true},
		"no line of TCP":   {text: "Ip: Forwarding\nIp: 1\n", bad: true},
		"only a heading":   {text: "Tcp: PassiveOpens\n", bad: true},
		"no such field":    {text: "Tcp: ActiveOpens\nTcp: 7\n", bad: true},
		"a field too few":  {text: "Tcp: ActiveOpens PassiveOpens\nTcp: 7\n", bad: true},
		"not a number":     {text: "Tcp: PassiveOpens\nTcp: many\n", bad: true},
		"a negative count": {text: "Tcp: PassiveOpens\nTcp: -1\n", bad: true},
	} {
		file := filepath.Join(dir, "snmp")
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := (&Statistics{name: file}).Accepted(); got != test.want || err != nil != test.bad {
			t.Errorf("%s: got %d, %v, want %d", name, got, err, test.want)
		}
	}
	if _, err := (&Statistics{name: filepath.Join(dir, "absent")}).Accepted(); err == nil {
		t.Error("an absent file gave no error")
	}
}

func FuzzStatistics(f *testing.F) {
	f.Add([]byte(statistics))
	f.Add([]byte("Tcp:\nTcp:"))
	f.Add([]byte("Tcp: PassiveOpens\nTcp: 20055555555555555555"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if n, err := passiveOpens(text); n != 0 && err != nil {
			t.Fatalf("%d with %v", n, err)
		}
	})
}
