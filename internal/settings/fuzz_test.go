package settings

import (
	"strings"
	"testing"
)

// FuzzMask checks that a password in a URL is never shown, whatever follows it.
func FuzzMask(f *testing.F) {
	for _, seed := range []string{"host:8080/path?query", "host", "[::1]:80", "a,http://b", "/%zz", "host#x", "", "@b"} {
		f.Add("http://", seed, false)
		f.Add("https://", seed, true)
	}
	f.Fuzz(func(t *testing.T, scheme, rest string, list bool) {
		const secret = "sEcReT"
		if strings.Contains(scheme+rest, secret) {
			return
		}
		if shown := maskURLs("http://user:"+secret+"@"+rest, list); strings.Contains(shown, secret) {
			t.Errorf("shows %q", shown)
		}
		if shown := maskURLs(scheme+"user:"+secret+"@"+rest, list); strings.Contains(shown, secret) {
			t.Errorf("of a scheme %q shows %q", scheme, shown)
		}
	})
}
