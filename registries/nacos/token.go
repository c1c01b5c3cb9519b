package nacos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"lastcall/internal/pace"
)

const (
	// defaultTTL is a token's lifetime if the server does not give one.
	defaultTTL = 5 * time.Hour
	// openFor is how long no login is tried at a server that has no login.
	openFor = time.Minute
	// loginPause is how long a refused login is not tried again, and how long a
	// new token is not renewed: a refusal in that time means that the user
	// lacks a right.
	loginPause = 5 * time.Second
)

// token is the result of a login.
type token struct {
	value   string
	at      time.Time // when it was issued
	renewAt time.Time // when it is renewed, before it expires
	refused error     // why the last login was refused
	until   time.Time // when the next login may be tried
	open    bool      // the server has no login
}

// currentToken returns the token to send. It is empty if no user is configured,
// or if the server has no login. refused is a token that the server did not
// accept; it is replaced.
func (s *server) currentToken(ctx context.Context, refused string) (string, error) {
	if s.user == "" {
		return "", nil
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return "", fmt.Errorf("logging in: %w", err)
	}
	defer leave()
	s.mu.Lock()
	t := s.token
	s.mu.Unlock()
	now := s.now()
	switch {
	case t.refused != nil && now.Before(t.until):
		return "", t.refused
	case t.open && now.Before(t.renewAt):
		return "", nil
	case t.value != "" && now.Before(t.renewAt) && (t.value != refused || now.Sub(t.at) < loginPause):
		return t.value, nil
	}
	t, err = s.login(ctx)
	if err != nil {
		if ctx.Err() != nil || t.until.IsZero() {
			return "", err // the server has not refused
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = t
	return t.value, err
}

// login logs in with the first login call that the server has. If the login is
// refused, the returned token records that.
func (s *server) login(ctx context.Context) (token, error) {
	form := url.Values{"username": {s.user}, "password": {s.password}}
	for _, path := range []string{"/v3/auth/user/login", "/v1/auth/login", "/v1/auth/users/login"} {
		r := request{method: http.MethodPost, path: path}
		a, err := s.ask(ctx, r, "", form)
		switch {
		case err != nil:
			return token{}, fmt.Errorf("logging in: %w", err)
		case a.absent():
			continue
		case a.code >= 500 && !strings.Contains(string(a.body), "unknown user"):
			return token{}, fmt.Errorf("logging in: %w", s.refusal(r, a))
		case a.code/100 == 3 || a.code == http.StatusTooManyRequests:
			return token{}, fmt.Errorf("logging in: %w", s.refusal(r, a))
		case a.code != http.StatusOK:
			err := fmt.Errorf("wrong LASTCALL_NACOS_USERNAME or LASTCALL_NACOS_PASSWORD: %w", s.refusal(r, a))
			return token{refused: err, until: s.now().Add(pace.Less(loginPause))}, err
		}
		return s.parseToken(a)
	}
	return token{open: true, renewAt: s.now().Add(openFor)}, nil
}

func (s *server) parseToken(a answer) (token, error) {
	type fields struct {
		AccessToken string `json:"accessToken"`
		TokenTTL    int64  `json:"tokenTtl"` // in seconds
	}
	var got struct {
		fields
		Data fields `json:"data"`
	}
	// Some builds of 3.x wrap it as they do all other answers.
	if err := json.Unmarshal(a.body, &got); err != nil {
		return token{}, errors.New("logging in: the answer is not JSON: is this a Nacos server?")
	}
	if got.AccessToken == "" {
		got.fields = got.Data
	}
	if got.AccessToken == "" {
		err := errors.New("wrong LASTCALL_NACOS_USERNAME or LASTCALL_NACOS_PASSWORD: the answer to the login holds no token")
		return token{refused: err, until: s.now().Add(pace.Less(loginPause))}, err
	}
	ttl := defaultTTL
	if got.TokenTTL > 0 {
		ttl = time.Duration(min(got.TokenTTL, int64(defaultTTL/time.Second))) * time.Second
	}
	// Pods that have started together do not all log in again at the same time.
	return token{value: got.AccessToken, at: s.now(), renewAt: s.now().Add(pace.LessUpTo(ttl*4/5, ttl/10))}, nil
}
