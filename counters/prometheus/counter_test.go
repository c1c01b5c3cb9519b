package prometheus

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"lastcall/drain"
)

func TestNewNamesEveryMistake(t *testing.T) {
	_, err := New(Config{URL: "127.0.0.1:8080/metrics?token=hush", Metric: "sum(up)", Total: "up - 1"}, drain.Pod{}, nil)
	if err == nil {
		t.Fatal("New took three mistakes")
	}
	for _, want := range []string{"LASTCALL_PROMETHEUS_URL must be", `LASTCALL_PROMETHEUS_METRIC="sum(up)": at byte 4: nothing may follow`, `LASTCALL_PROMETHEUS_TOTAL="up - 1": at byte 4: nothing may follow`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "hush") {
		t.Errorf("the error tells what may be a secret: %v", err)
	}
	if _, err := New(Config{}, drain.Pod{}, nil); err == nil || strings.Count(err.Error(), "LASTCALL_") != 2 {
		t.Errorf("got %v, want both variables named", err)
	}
}

// The counter asks for the text format, at the given address, and without a
// proxy.
func TestRequest(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "me" || password != "hush" || !strings.HasPrefix(r.Header.Get("Accept"), "text/plain;version=0.0.4") {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "up 3\n")
	}))
	defer s.Close()
	url := strings.Replace(s.URL, "://", "://me:hush@", 1)
	if r, err := counter(t, url, "up").Count(t.Context()); err != nil || r.InFlight != 3 {
		t.Errorf("got %+v, %v, want 3", r, err)
	}
	_, err := counter(t, strings.Replace(url, "me", "you", 1), "up").Count(t.Context())
	if err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "LASTCALL_PROMETHEUS_URL") {
		t.Errorf("got %v, want an error that names the variable and not the password", err)
	}
}

func TestFaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		says   string
	}{
		{"hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "context deadline exceeded"},
		{"never ends", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "up 0\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "context deadline exceeded"},
		{"too long", func(w http.ResponseWriter, _ *http.Request) {
			line := []byte("up 0\n" + strings.Repeat("#", 1<<16) + "\n")
			for range 65 {
				_, _ = w.Write(line)
			}
		}, "longer than 4194304 bytes (4 MiB), which is the most that is read"},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }, "302"},
		{"dropped", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := httptest.NewServer(test.answer)
			defer s.Close()
			limit := 30 * time.Second
			if strings.Contains(test.says, "deadline") {
				limit = 300 * time.Millisecond // only for the case that waits
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			r, err := counter(t, s.URL, "up").Count(ctx)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %+v, %v, want an error that says %q", r, err, test.says)
			}
		})
	}
}

// An exporter that is gone shows nothing about the app's requests.
func TestRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	_ = l.Close()
	if r, err := counter(t, url, "up").Count(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("got %+v, %v, want an error that is ECONNREFUSED", r, err)
	}
}

func counter(t *testing.T, url, metric string) *Counter {
	t.Helper()
	c, err := New(Config{URL: url, Metric: metric}, drain.Pod{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
