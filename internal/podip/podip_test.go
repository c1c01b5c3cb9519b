package podip

import (
	"net"
	"testing"
)

func TestFirst(t *testing.T) {
	cidr := func(s string) net.Addr {
		ip, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		return &net.IPNet{IP: ip, Mask: n.Mask}
	}
	for _, test := range []struct {
		name string
		in   []net.Addr
		want string
	}{
		{"loopback and link-local are no pod's", []net.Addr{cidr("127.0.0.1/8"), cidr("::1/128"), cidr("fe80::1/64")}, ""},
		{"IPv4 goes before IPv6", []net.Addr{cidr("fd00::5/64"), cidr("10.1.2.3/24")}, "10.1.2.3"},
		{"the first of two", []net.Addr{cidr("10.1.2.3/24"), cidr("10.9.9.9/24")}, "10.1.2.3"},
		{"IPv6 alone", []net.Addr{cidr("::1/128"), cidr("fd00::5/64")}, "fd00::5"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := first(test.in)
			if got != test.want || (err != nil) != (test.want == "") {
				t.Fatalf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}
