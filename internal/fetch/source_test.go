package fetch

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// settings returns the settings of a page at address.
func settings(address string) Settings {
	return Settings{Variable: "EXAMPLE_URL", Address: address, Example: "http://h/metrics", Prefix: "EXAMPLE"}
}

func open(t *testing.T, s Settings) *Source {
	t.Helper()
	source, err := Open(s)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func wantPage(t *testing.T, s *Source, want string) {
	t.Helper()
	if got, err := s.Get(t.Context(), 1000); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func wantError(t *testing.T, s *Source, parts ...string) {
	t.Helper()
	got, err := s.Get(t.Context(), 1000)
	if err == nil {
		t.Fatalf("got %q, want an error", got)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
}

// echo answers with the request.
func echo(w http.ResponseWriter, r *http.Request) {
	_, _ = fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.URL.RequestURI(), r.Header.Get("Authorization"))
}

func TestSourceOfAURL(t *testing.T) {
	address := serve(t, echo)
	host := strings.TrimPrefix(address, "http://")
	s := open(t, settings(address+"/base?x=1"))
	wantPage(t, s, "GET "+host+" /base?x=1 ")
	wantPage(t, s.At("stats", "format=json&filter=%5Ea"), "GET "+host+" /base/stats?format=json&filter=%5Ea ")
	wantPage(t, s, "GET "+host+" /base?x=1 ") // as before
	if got, err := s.At("fail", "").Post(t.Context(), 1000); err != nil || string(got) != "POST "+host+" /base/fail " {
		t.Fatalf("got %q, %v", got, err)
	}
	if !s.Local("") || fmt.Sprint(s.Port()) != strings.TrimPrefix(host, "127.0.0.1:") || !s.Query() {
		t.Errorf("local %v, port %d, query %v", s.Local(""), s.Port(), s.Query())
	}
	if remote := open(t, settings("https://10.0.0.7/x")); remote.Local("10.0.0.8") || !remote.Local("10.0.0.7") || remote.Port() != 443 || remote.Query() {
		t.Error("a page of another host counts as local")
	}
}

func TestSourceSendsItsHeaders(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Answer", "yes")
		_, _ = io.WriteString(w, r.Header.Get("Accept")+" "+r.Header.Get("Cache-Control"))
	})
	s := open(t, settings(address))
	wantPage(t, s.With("Accept", "text/plain"), "text/plain no-cache")
	wantPage(t, s, " no-cache")
	if page, err := s.Read(t.Context(), 1000); err != nil || page.Header.Get("X-Answer") != "yes" {
		t.Errorf("got %v, %v", page.Header, err)
	}
}

func TestSourceOfASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	s := open(t, settings("unix://"+path+":/status/page?full"))
	if _, err := s.Get(t.Context(), 1000); !Refused(err) || !strings.Contains(err.Error(), "GET unix://"+path+":/status/page: ") {
		t.Fatalf("got %v, want a refused connection to the socket", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(echo), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	wantPage(t, s, "GET localhost /status/page?full ")
	s = open(t, settings("unix://"+path))
	wantPage(t, s, "GET localhost / ")
	wantPage(t, s.At("stats", "format=json"), "GET localhost /stats?format=json ")
	if !s.Local("") || s.Port() != 0 {
		t.Errorf("local %v, port %d", s.Local(""), s.Port())
	}
	_ = server.Close() // this also removes the socket's file
	s.CloseIdleConnections()
	if _, err := s.Get(t.Context(), 1000); !Refused(err) {
		t.Errorf("got %v, want a refused connection", err)
	}
}

func TestTokenIsReadForEachCall(t *testing.T) {
	address := serve(t, echo)
	host := strings.TrimPrefix(address, "http://")
	file := filepath.Join(t.TempDir(), "token")
	with := settings(address)
	with.TokenFile = write(t, file, "first\n")
	s := open(t, with)
	wantPage(t, s, "GET "+host+" / Bearer first")
	write(t, file, "second")
	wantPage(t, s, "GET "+host+" / Bearer second")
	write(t, file, " \n")
	wantError(t, s, "EXAMPLE_TOKEN_FILE", "is empty")
	write(t, file, "hunter2 hunter3")
	wantError(t, s, "EXAMPLE_TOKEN_FILE", "one bearer token")
	if _, err := s.Get(t.Context(), 1000); strings.Contains(err.Error(), "hunter") {
		t.Errorf("%q contains a secret", err)
	}
	write(t, file, strings.Repeat("x", maxToken+1))
	wantError(t, s, "EXAMPLE_TOKEN_FILE", "longer than 65536 bytes (64 KiB)")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantError(t, s, "EXAMPLE_TOKEN_FILE", "no such file")
	if _, err := s.Get(t.Context(), 1000); Refused(err) {
		t.Error("a missing token file counts as a program that is gone")
	}
}

// The authorities are read again for each new connection.
func TestAuthorities(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(echo))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // for handshakes that are meant to fail
	server.StartTLS()
	t.Cleanup(server.Close)
	own := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	host := strings.TrimPrefix(server.URL, "https://")

	wantError(t, open(t, settings(server.URL)), "unknown authority", "set EXAMPLE_CA_FILE")

	file := filepath.Join(t.TempDir(), "ca.pem")
	with := settings(server.URL)
	with.CAFile = write(t, file, own)
	s := open(t, with)
	wantPage(t, s, "GET "+host+" / ")
	s.CloseIdleConnections()
	write(t, file, "replaced, half way")
	wantError(t, s, "EXAMPLE_CA_FILE", "no certificate in PEM")
	write(t, file, own)
	wantPage(t, s, "GET "+host+" / ")
	s.CloseIdleConnections()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantError(t, s, "EXAMPLE_CA_FILE", "no such file")
	if _, err := s.Get(t.Context(), 1000); Refused(err) {
		t.Error("a missing authority file counts as a program that is gone")
	}
}

func TestOpenNamesEveryMistake(t *testing.T) {
	empty := write(t, filepath.Join(t.TempDir(), "empty"), "")
	for _, test := range []struct {
		name   string
		change func(*Settings)
		says   []string
	}{
		{"no address", func(s *Settings) { s.Address = "" }, []string{"EXAMPLE_URL must be", "http://h/metrics"}},
		{"all at once", func(s *Settings) { s.Address, s.CAFile, s.TokenFile = "h:1", empty+".not", empty }, []string{"EXAMPLE_URL", "EXAMPLE_CA_FILE", "EXAMPLE_TOKEN_FILE"}},
		{"nothing to verify", func(s *Settings) { s.CAFile = empty }, []string{"no certificate", "not an https:// URL"}},
		{"a socket has no TLS", func(s *Settings) { s.Address, s.CAFile = "unix:///x", empty }, []string{"not an https:// URL"}},
		{"two credentials", func(s *Settings) { s.Address, s.TokenFile = "http://u:hunter2@h/", write(t, empty+"2", "x") }, []string{"only one of them"}},
		{"a relative socket", func(s *Settings) { s.Address = "unix://run/x.sock" }, []string{"absolute path", "unix:///run/app/admin.sock:/metrics", "http://h/metrics"}},
		{"no socket", func(s *Settings) { s.Address = "unix://" }, []string{"absolute path"}},
		{"no socket before the page", func(s *Settings) { s.Address = "unix:///:/x" }, []string{"absolute path"}},
		{"a folder", func(s *Settings) { s.Address = "unix:///run/" }, []string{"absolute path"}},
		{"a page without /", func(s *Settings) { s.Address = "unix:///run/x:y" }, []string{"absolute path"}},
		{"opaque", func(s *Settings) { s.Address = "unix:x" }, []string{"absolute path"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := settings("http://h/")
			test.change(&s)
			_, err := Open(s)
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, part := range test.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q lacks %q", err, part)
				}
			}
			if strings.Contains(err.Error(), "hunter") {
				t.Errorf("%q contains a secret", err)
			}
		})
	}
}

func TestStoredCopies(t *testing.T) {
	for _, test := range []struct {
		name, header, value string
		says                string // empty: accepted
	}{
		{"from a cache that asked", "Age", "0", ""},
		{"from a cache", "Age", "1", "stored copy"},
		{"nonsense", "Age", "old", "stored copy"},
		{"dated now", "Date", time.Now().UTC().Format(http.TimeFormat), ""},
		{"dated a moment ago", "Date", time.Now().Add(-2 * time.Second).UTC().Format(http.TimeFormat), ""},
		{"dated before", "Date", time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat), "dated 1m"},
		{"dated ahead", "Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), ""},
		{"no date", "Date", "yesterday", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t, settings(serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(test.header, test.value) })))
			_, err := s.Get(t.Context(), 1000)
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("got %v, want %q", err, test.says)
			}
			if _, err := s.Post(t.Context(), 1000); err != nil {
				t.Errorf("a call that changes something: %v", err)
			}
		})
	}
}

func TestErrorsNameTheBounds(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"never ends": func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, settings(serve(t, answer)))
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := s.Get(ctx, 1000); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "within the time limit of 200ms") {
				t.Errorf("got %v", err)
			}
		})
	}
	long := open(t, settings(serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 5000)) })))
	for limit, says := range map[int64]string{4096: "longer than 4096 bytes (4 KiB)", 4999: "longer than 4999 bytes"} {
		if _, err := long.Get(t.Context(), limit); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}

func TestUnauthorizedNamesTheTokenFile(t *testing.T) {
	s := open(t, settings(serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })))
	wantError(t, s, "set its credentials in the URL", "EXAMPLE_TOKEN_FILE")
}

func FuzzOpen(f *testing.F) {
	for _, seed := range []string{"unix:///run/x.sock:/page?q#f", "unix:///run/x.sock", "unix://:", "unix:", "http://u:p@[::1]:80/;csv", "unix:///a:b:/c", "unix:///%3a:/%2f"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		s, err := Open(settings(address))
		if err != nil {
			return
		}
		if p := s.Port(); p < 0 || p > 65535 || (p == 0) != (s.socket != "") {
			t.Fatalf("%q: port %d", address, p)
		}
		if s.socket != "" && !filepath.IsAbs(s.socket) {
			t.Fatalf("%q: socket %q", address, s.socket)
		}
		if _, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.At("x", "").url.String(), http.NoBody); err != nil {
			t.Fatalf("%q: %v", address, err)
		}
	})
}
