package consul

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
)

// FuzzQuoted: whatever an id contains, the filter language reads it back, and
// no part of it ends the string. The language ends a string at the first
// quotation mark, and then parses it as Go does.
func FuzzQuoted(f *testing.F) {
	for _, s := range []string{"", "web-1", `"`, `\`, `\"`, `\\"`, "`", "a\nb", "ü🧀", "\xff", "\x00", `" or ID != "`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q := quoted(s)
		if len(q) < 2 || q[0] != '"' || strings.Index(q[1:], `"`) != len(q)-2 {
			t.Fatalf("quoted(%q) = %s: a quotation mark ends it early", s, q)
		}
		got, err := strconv.Unquote(q)
		if err != nil || got != s {
			t.Fatalf("quoted(%q) = %s reads back as %q, %v", s, q, got, err)
		}
		if !utf8.ValidString(q) {
			t.Fatalf("quoted(%q) = %q is not UTF-8", s, q)
		}
	})
}

// FuzzAddress: CONSUL_HTTP_ADDR is either refused, without showing a password,
// or gives an address to which a call can be made.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"", "10.0.0.5:8500", "http://consul:8500", "https://c/x/y", "unix:///s", "[::1]:8500", "a@b", "http://u:p@h", "::", "%zz", "http://h:0", "HTTP://H:1", "h/x?y#z"} {
		f.Add(s, true, "10.0.0.5")
	}
	f.Fuzz(func(t *testing.T, raw string, overTLS bool, hostIP string) {
		a, err := parseAddress(raw, overTLS, hostIP)
		if err != nil {
			if !strings.Contains(err.Error(), "CONSUL_HTTP_ADDR") || strings.Contains(raw, "@") && strings.Contains(err.Error(), raw) {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		if a.scheme != "http" && a.scheme != "https" || a.host == "" || overTLS && a.socket == "" && a.scheme != "https" {
			t.Fatalf("%q, TLS %v: %+v", raw, overTLS, a)
		}
		if a.socket == "" && strings.Contains(a.String(), "@") && !strings.Contains(hostIP, "@") {
			t.Fatalf("%q: %s holds a user", raw, a)
		}
	})
}

// FuzzIsAt: no address is mistaken for the pod's.
func FuzzIsAt(f *testing.F) {
	f.Add("10.1.2.3", "", "10.1.2.3", "web-0")
	f.Add("", "10.1.2.3", "10.1.2.3", "")
	f.Add("::ffff:10.1.2.3", "", "10.1.2.3", "")
	f.Add("web-0.web", "", "10.1.2.3", "web-0")
	f.Add("", "", "", "")
	f.Fuzz(func(t *testing.T, address, node, ip, name string) {
		r := &Registry{pod: drain.Pod{IP: ip, Name: name}}
		at := r.isAt(&api.AgentService{Address: address}, node)
		host := address
		if host == "" {
			host = node
		}
		named := name != "" && strings.HasPrefix(host+".", name+".")
		if at && !named && !sameAddress(host, ip) {
			t.Fatalf("%q on node %q is taken for pod %q at %q", address, node, name, ip)
		}
		if host == "" && at {
			t.Fatalf("nothing is taken for pod %q at %q", name, ip)
		}
	})
}

// sameAddress reports whether two texts are the same IP address.
func sameAddress(a, b string) bool {
	x, err := netip.ParseAddr(a)
	if err != nil {
		return false
	}
	y, err := netip.ParseAddr(b)
	return err == nil && x.Unmap() == y.Unmap()
}
