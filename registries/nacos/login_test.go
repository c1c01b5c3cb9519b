package nacos

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func (f *fake) loggedIn() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logins
}

// A token is used for most of its lifetime. It is renewed before it expires, or
// when the server no longer knows it.
func TestTokenRenewal(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2, 3} {
		client := grpc
		if major == 1 {
			client = beats
		}
		h := kind{"", major, withUsers, client}.start(t)
		h.Register(t)
		r := h.plugIn(t)
		look := func(want int, when string) {
			t.Helper()
			before := h.f.loggedIn()
			if isWithdrawn(t, r) && h.client == grpc {
				t.Errorf("Nacos %d, %s: withdrawn", major, when)
			}
			if n := h.f.loggedIn() - before; n != want {
				t.Errorf("Nacos %d, %s: %d logins, want %d", major, when, n, want)
			}
		}
		look(1, "first")
		look(0, "then")
		h.f.advance(12500 * time.Second)
		look(0, "before seven tenths of its life")
		h.f.advance(2000 * time.Second)
		look(1, "after four fifths of it")
		h.f.advance(6 * time.Second)
		h.f.mu.Lock()
		clear(h.f.tokens) // the server was restarted, with another key
		h.f.mu.Unlock()
		look(1, "when it is not known any more")
	}
}

// The error of a login names the mistake, without the password. A login that
// fails is not repeated several times a second.
func TestLoginsThatFail(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2, 3} {
		h := kind{"", major, withUsers, beats}.start(t)
		h.cfg.Username, h.cfg.Password = "", ""
		for name, err := range errorsOf(t, h.plugIn(t)) {
			if err == nil || !strings.Contains(err.Error(), "set LASTCALL_NACOS_USERNAME") {
				t.Errorf("Nacos %d, %s without a user: %v", major, name, err)
			}
		}
		h.cfg.Username, h.cfg.Password = fakeUser, "wrong&secret"
		r := h.plugIn(t)
		before := h.f.loggedIn()
		for range 3 {
			for name, err := range errorsOf(t, r) {
				if err == nil || !strings.Contains(err.Error(), "wrong LASTCALL_NACOS_USERNAME or LASTCALL_NACOS_PASSWORD") {
					t.Errorf("Nacos %d, %s with a wrong password: %v", major, name, err)
				} else if strings.Contains(err.Error(), "secret") {
					t.Errorf("Nacos %d, %s: the password is in %v", major, name, err)
				}
			}
		}
		if n := h.f.loggedIn() - before; n != 1 {
			t.Errorf("Nacos %d: %d logins with a wrong password in a moment", major, n)
		}
		h.f.advance(6 * time.Second)
		_ = errorsOf(t, r)
		if n := h.f.loggedIn() - before; n != 2 {
			t.Errorf("Nacos %d: %d logins with a wrong password in 6 s, want 2", major, n)
		}
	}
}

// A server without a login gets requests without a token.
func TestServerWithoutLogin(t *testing.T) {
	t.Parallel()
	h := kind{"", 2, nil, grpc}.start(t)
	h.Register(t)
	h.cfg.URLs = []string{serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/auth/") {
			http.NotFound(w, r)
			return
		}
		h.f.ServeHTTP(w, r)
	}))}
	h.cfg.Username, h.cfg.Password = fakeUser, fakePassword
	r := h.plugIn(t)
	do(t, "Withdraw", r.Withdraw)
	if !isWithdrawn(t, r) {
		t.Error("not withdrawn")
	}
}

// A user without a right is distinguished from an unknown user.
func TestUserWithoutRights(t *testing.T) {
	t.Parallel()
	h := kind{"", 3, withUsers, grpc}.start(t)
	h.Register(t)
	h.cfg.URLs = []string{serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/partial") {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"code":10001,"message":"authorization failed! ` + r.Header.Get("Accesstoken") + `"}`))
			return
		}
		h.f.ServeHTTP(w, r)
	}))}
	err := h.plugIn(t).Withdraw(t.Context())
	if err == nil || !strings.Contains(err.Error(), "needs the right to read and write the namespace") {
		t.Errorf("got %v", err)
	} else if strings.Contains(err.Error(), "token-") {
		t.Errorf("the token is in %v", err)
	}
}

// errorsOf calls every method, and returns their errors.
func errorsOf(t *testing.T, r *Registry) map[string]error {
	t.Helper()
	all := map[string]error{}
	for name, call := range map[string]func(context.Context) error{
		"Withdraw": r.Withdraw, "Restore": r.Restore, "Deregister": r.Deregister,
		"Withdrawn": func(ctx context.Context) error { _, err := r.Withdrawn(ctx); return err },
		"Find":      func(ctx context.Context) error { _, err := r.Find(ctx); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		all[name] = call(ctx)
		cancel()
	}
	return all
}

// Answers that are not Nacos', and the errors about them.
func TestStrangeAnswers(t *testing.T) {
	t.Parallel()
	text := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://user:secret@elsewhere/")
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		}
	}
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"nothing there", http.NotFound, "usually end in /nacos"},
		{"a page", text(200, "<html>hello</html>"), "unexpected answer"},
		{"empty", text(200, ""), "unexpected answer"},
		{"other JSON", text(200, `{"status":"UP"}`), "unexpected answer"},
		{"another kind", text(200, `{"code":0,"data":"ok"}`), "unexpected answer"},
		{"a redirect", text(302, ""), "redirects to http://elsewhere, which is not followed"},
		{"no route", text(404, `{"code":404,"message":"no route"}`), "usually end in /nacos"},
		{"starting", text(503, "server is STARTING now, please try again later!"), "the server failed: see its log"},
		{"rate limit", text(429, "over limit"), "overloaded"},
		{"too long", func(w http.ResponseWriter, _ *http.Request) {
			block := []byte(strings.Repeat(" ", 1<<20))
			for {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, "longer than"},
		{"closed", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "closed without an answer"},
	} {
		h := newHarness(nil, serve(t, test.answer), beats)
		for name, err := range errorsOf(t, h.plugIn(t)) {
			switch {
			case err == nil || !strings.HasPrefix(err.Error(), h.url):
				t.Errorf("%s, %s: got %v, want an error that begins with %s", test.name, name, err, h.url)
			case !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret"):
				t.Errorf("%s, %s: got %v, want %q in it, and no secrets", test.name, name, err, test.want)
			}
		}
	}
}

// No error contains the password, whatever fails: not even if a server echoes
// it.
func TestNoSecretsInErrors(t *testing.T) {
	t.Parallel()
	echo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte(r.Form.Encode() + " " + r.FormValue("password")))
	}))
	for _, u := range []string{echo, dead, "http://nacos.invalid/nacos"} {
		h := newHarness(nil, u, beats)
		h.cfg.Username, h.cfg.Password = fakeUser, fakePassword
		for name, err := range errorsOf(t, h.plugIn(t)) {
			if err == nil {
				t.Errorf("%s at %s: no error", name, u)
				continue
			}
			if u == echo && !strings.Contains(err.Error(), "logging in: the server failed") {
				t.Errorf("%s: a login that fails is %v", name, err)
			}
			for _, secret := range []string{fakePassword, url.QueryEscape(fakePassword), "word&1", "Bearer"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%s at %s: %q in %v", name, u, secret, err)
				}
			}
		}
	}
}
