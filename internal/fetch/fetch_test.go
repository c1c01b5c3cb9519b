package fetch

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// withSecrets adds a user, a password and a token to address.
func withSecrets(address string) string {
	return strings.Replace(address, "http://", "http://alice:hunter2@", 1) + "/page?token=hunter3"
}

func TestGetReadsThePage(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		_, _ = w.Write([]byte(r.Method + " " + r.URL.RequestURI() + " " + user + ":" + password))
	})
	got, err := Get(t.Context(), NewClient(), withSecrets(address), 1000)
	if want := "GET /page?token=hunter3 alice:hunter2"; err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
	got, err = Post(t.Context(), NewClient(), address+"/fail", 1000)
	if want := "POST /fail :"; err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func TestErrorsNameTheAddressAndNoSecrets(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://elsewhere/")
			w.WriteHeader(code)
		}
	}
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"401", status(401), "set its credentials in the URL"},
		{"403", status(403), "allow requests from this pod"},
		{"404", status(404), "not at this path"},
		{"405", status(405), "another program"},
		{"500", status(500), "see its log"},
		{"302", status(302), "set the address that it redirects to"},
		{"204", status(204), "it answered 204 No Content"},
		{"huge", func(w http.ResponseWriter, _ *http.Request) {
			for range 1000 {
				_, _ = w.Write(make([]byte, 1000))
			}
		}, "longer than 100 bytes"},
		{"cut short", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "50")
			_, _ = w.Write([]byte("half"))
		}, "reading the answer: unexpected EOF"},
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := withSecrets(serve(t, test.answer))
			_, err := Get(t.Context(), NewClient(), address, 100)
			if err == nil {
				t.Fatal("got no error")
			}
			u, _ := url.Parse(address)
			for _, want := range []string{test.want, "GET http://" + u.Host + "/page: "} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "alice") {
				t.Errorf("%q contains a secret", err)
			}
		})
	}
}

func TestExactlyTheLimitIsRead(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 100)) })
	if got, err := Get(t.Context(), NewClient(), address, 100); err != nil || len(got) != 100 {
		t.Fatalf("got %d bytes, %v, want 100", len(got), err)
	}
}

func TestRefused(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	_, err := Get(t.Context(), NewClient(), withSecrets(s.URL), 100)
	if !Refused(err) {
		t.Fatalf("%v is not reported as a refused connection", err)
	}
	if strings.Contains(err.Error(), "hunter") {
		t.Fatalf("%q contains a secret", err)
	}
	if Refused(&StatusError{Code: 503}) || Refused(nil) {
		t.Fatal("an answer is reported as a refused connection")
	}
}

func TestContextEndsAHang(t *testing.T) {
	release := make(chan struct{})
	address := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Get(ctx, NewClient(), withSecrets(address), 100); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want an error that is context.DeadlineExceeded", err)
	}
}

func TestNoProxyFromTheEnvironment(t *testing.T) {
	if proxy := NewClient().Transport.(*http.Transport).Proxy; proxy != nil {
		t.Fatal("the client asks a proxy")
	}
}

func TestParseURL(t *testing.T) {
	for _, good := range []string{"http://127.0.0.1:9901", "https://[::1]/x", "http://u:p@host:1/;csv", "http://[fd00::1]:80",
		"http://h/a%40b?x=y%40z", "http://u:p@w@h"} {
		if _, err := ParseURL("EXAMPLE_X", good, "http://h"); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "127.0.0.1:9901", "http://", "http://:80", "ftp://h", "http://h:", "http://h:0",
		"http://h:65536", "http://u:hunter2@h:x", "unix:///x", "http://u:hunter2@", "http://%zz",
		"http://127.0.0.1:99999/x", "http://:/x", "http://u:1/hunter2@h", "http://u:1?hunter2@h", "http://u:1#hunter2", "http://u:1/x#hunter2@h"} {
		_, err := ParseURL("EXAMPLE_X", bad, "http://h:1/page")
		if err == nil {
			t.Errorf("%q was taken", bad)
			continue
		}
		if s := err.Error(); !strings.Contains(s, "EXAMPLE_X") || !strings.Contains(s, "http://h:1/page") || strings.Contains(s, "hunter") {
			t.Errorf("%q: %q", bad, s)
		}
	}
}

func TestPortAndLocal(t *testing.T) {
	for address, want := range map[string]int{"http://h": 80, "https://h": 443, "http://h:8404/;csv": 8404, "http://[::1]:1": 1} {
		u, _ := url.Parse(address)
		if got := Port(u); got != want {
			t.Errorf("%s: port %d, want %d", address, got, want)
		}
	}
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.8.9.1": true, "::1": true, "10.0.0.7": true, "0.0.0.0": true,
		"10.0.0.8": false, "nginx": false, "": false,
	} {
		if got := Local(host, "10.0.0.7"); got != want {
			t.Errorf("%s: local is %v, want %v", host, got, want)
		}
	}
	if Local("10.0.0.7", "") {
		t.Error("an address is local to a pod without one")
	}
	if Local("", "") {
		t.Error("no address is local to a pod without one")
	}
}

func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{"http://127.0.0.1:9901", "http://u:p@[::1]:80/;csv?x#y", "http://h:99999", "unix:///x", "%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		u, err := ParseURL("EXAMPLE_X", value, "http://h")
		if err != nil {
			if u != nil {
				t.Fatal("both a URL and an error")
			}
			return
		}
		if p := Port(u); p < 1 || p > 65535 {
			t.Fatalf("%q: port %d", value, p)
		}
		if _, err := url.Parse(Public(u)); err != nil {
			t.Fatalf("%q: what is shown is not a URL: %v", value, err)
		}
	})
}
