package server

import (
	"bufio"
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"lastcall/drain"
)

// FuzzRequest sends what a caller without the token may send. The server
// answers each request, and none begins a drain.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		hook, live, smuggled,
		"POST /drain HTTP/1.1\r\nHost: pod\r\nAuthorization: Bearer x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\n", "GET /%70restop HTTP/1.0\r\nAuthorization: bearer  token\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: pod\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	d := drain.New(drain.Config{GracePeriod: 30 * time.Second, Reserve: time.Second, Poll: time.Second})
	handler := Handler(d, Options{Token: "a token that no seed has"})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return // the server answers it
		}
		r.RemoteAddr = "10.0.0.5:1024"
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code < 200 || w.Code > 499 || w.Body.Len() == 0 {
			t.Errorf("answered %d %q", w.Code, w.Body)
		}
		if d.Leaving() {
			t.Fatalf("%q has begun a drain", raw)
		}
	})
}
