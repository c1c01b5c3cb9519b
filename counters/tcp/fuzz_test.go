package tcp

import "testing"

// FuzzReply parses answers that a port may give when it is asked what it
// speaks.
func FuzzReply(f *testing.F) {
	for _, seed := range []string{"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1 400 \r\n\r\nHTTPS", "\x15\x03\x01", "\x00\x00\x06\x04", "SSH-2.0", ""} {
		f.Add([]byte(seed), false, false, "")
	}
	f.Add([]byte{}, true, true, "h2")
	f.Fuzz(func(t *testing.T, text []byte, secure, end bool, alpn string) {
		r := reply{tls: secure, alpn: alpn, text: text, end: end, read: end}
		p := r.protocol()
		if !p.asked || p.found == "" || p.http1 && p.http2 || (p.http1 || p.http2) && !p.http {
			t.Errorf("%q is %+v", text, p)
		}
		if len(text) > 0 && text[0] != 0 && text[0] != 'H' && alpn == "" && p.http {
			t.Errorf("%q is %+v", text, p)
		}
		wantsTLS(text)
		isBeginning(text)
	})
}

func FuzzRemote(f *testing.F) {
	for _, seed := range []string{"0100007F:1F90", "00000000000000000000000001000000:0050", ":", "01:1", "0100007F"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if remote, ok := parseRemote(text); ok && !remote.IsValid() {
			t.Errorf("%q is %v", text, remote)
		}
	})
}
