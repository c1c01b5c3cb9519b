package countertest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lastcall/drain"
)

// Fault is an answer that is not the proxy's statistics.
type Fault struct {
	Name   string
	Status int
	Body   string
	Says   string // what the error must contain
}

// password is in the URL of a server of faults. No error may contain it.
const password = "hunter2"

// Faults runs test for each of the faults, and for the faults that every HTTP
// server can have. url is that of a server that gives this answer to every
// request.
func Faults(t *testing.T, faults []Fault, test func(t *testing.T, url string, f Fault)) {
	t.Helper()
	for _, f := range append([]Fault{
		{"no credentials", 401, "", "set its credentials in the URL"},
		{"denied", 403, "", "allow requests from this pod"},
		{"not there", 404, "", "not at this path"},
		{"failing", 500, "", "see its log"},
	}, faults...) {
		t.Run(f.Name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(f.Status)
				fmt.Fprint(w, f.Body)
			}))
			defer s.Close()
			test(t, strings.Replace(s.URL, "http://", "http://user:"+password+"@", 1), f)
		})
	}
}

// WantError takes one reading, which must fail with an error that contains each
// of the parts, and not the password.
func WantError(t *testing.T, c drain.Counter, parts ...string) {
	t.Helper()
	r, err := c.Count(t.Context())
	if err == nil {
		t.Fatalf("got %+v, want an error", r)
	}
	ErrorSays(t, err, parts...)
}

// ErrorSays checks that an error contains each of the parts, and not the
// password.
func ErrorSays(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one that says %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	if strings.Contains(err.Error(), password) {
		t.Errorf("%q tells a secret", err)
	}
}
