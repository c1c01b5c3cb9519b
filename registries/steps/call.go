package steps

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"

	"lastcall/internal/fetch"
)

const (
	// maxAnswer limits the body of an answer, in bytes: PD's list of 1,000
	// stores has two million.
	maxAnswer = 4 << 20
	// maxExcerpt limits what an error shows of an answer.
	maxExcerpt = 200
	// connectLimit is the timeout for establishing a connection, in addition to
	// the call's own deadline.
	connectLimit = 2 * time.Second
	// keepIdle is how long an idle connection is kept. It covers the pauses
	// between the calls of a drain, and no more: a server that stops must not
	// have to wait for its last idle client.
	keepIdle = time.Second
)

// caller makes the calls of a file.
type caller struct {
	file    *file
	client  *http.Client
	secrets []string // never shown

	mu   sync.Mutex
	last int // index of the server that answered last
}

// answer is the result of a call.
type answer struct {
	code int
	body []byte
}

func newCaller(f *file, values values, secrets []string) (*caller, error) {
	t := &http.Transport{
		Proxy:                  nil,
		DialContext:            (&net.Dialer{Timeout: connectLimit}).DialContext,
		MaxConnsPerHost:        2,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        keepIdle,
		MaxResponseHeaderBytes: 64 << 10,
	}
	// Without files from the user, the system's authorities verify the server.
	if f.tls.set {
		files, err := f.tls.open(values)
		if err != nil {
			return nil, err
		}
		t.DialTLSContext = files.dial
	}
	return &caller{
		file: f,
		client: &http.Client{
			Transport: t,
			// Following a redirect would send the token to another host, and
			// turn a PUT into a GET that succeeds.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		secrets: secrets,
	}, nil
}

// call makes the call of a step. If the file names several servers, it tries
// one after the other until one gives an answer that is not a failure of the
// server itself.
func (c *caller) call(ctx context.Context, s *step, values values) (answer, error) {
	at, err := s.url.expand(values, inURL)
	if err != nil {
		return answer{}, err
	}
	limit := cmp.Or(s.timeout, c.file.timeout)
	if !strings.HasPrefix(at, "/") {
		return c.ask(ctx, s, at, values, limit)
	}
	servers, err := c.servers(values)
	if err != nil {
		return answer{}, err
	}
	c.mu.Lock()
	first := c.last
	c.mu.Unlock()
	var failed []error
	for n := range servers {
		i := (first + n) % len(servers)
		got, err := c.ask(ctx, s, servers[i]+at, values, share(ctx, limit, len(servers)-n))
		if err == nil && got.code >= 500 && n < len(servers)-1 {
			// Only this server may have failed, unless the file names this
			// answer.
			if _, known := s.match(got.code, got.body, values); !known && !s.okay(got.code) {
				failed = append(failed, c.refusal(s, servers[i]+at, got))
				continue
			}
		}
		if err == nil {
			c.mu.Lock()
			c.last = i
			c.mu.Unlock()
			return got, nil
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return answer{}, errors.Join(failed...)
}

// servers returns the base URLs, without a trailing slash. A variable may
// contain several, separated by commas.
func (c *caller) servers(values values) ([]string, error) {
	var all []string
	for _, t := range c.file.servers {
		expanded, err := t.expand(values, nil)
		if err != nil {
			return nil, err
		}
		for _, one := range strings.Split(expanded, ",") {
			if one = strings.TrimRight(strings.TrimSpace(one), "/"); one != "" {
				all = append(all, one)
			}
		}
	}
	return all, nil
}

// share returns the time limit for one of the servers that are left. A server
// that hangs must leave time for the others.
func share(ctx context.Context, limit time.Duration, left int) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return limit
	}
	return min(limit, time.Until(deadline)/time.Duration(left))
}

// ask makes one call to one address.
func (c *caller) ask(ctx context.Context, s *step, at string, values values, limit time.Duration) (answer, error) {
	if err := ctx.Err(); err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := c.request(ctx, s, at, values)
	if err != nil {
		return answer{}, err
	}
	fail := func(err error) (answer, error) {
		return answer{}, fmt.Errorf("%s %s: %w", req.Method, c.shown(at), err)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return fail(c.explain(err, limit))
	}
	defer func() { _ = resp.Body.Close() }() // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fail(fmt.Errorf("reading the answer: %w", err))
	case len(body) > maxAnswer:
		return fail(fmt.Errorf("the answer is longer than %d MiB", maxAnswer>>20))
	}
	return answer{resp.StatusCode, body}, nil
}

func (c *caller) request(ctx context.Context, s *step, at string, values values) (*http.Request, error) {
	body, err := s.body.expand(values, inBody)
	if err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if _, ok := fetch.Address(at); !ok {
		return nil, fmt.Errorf("%s %s: must be an http:// or https:// URL", s.verb(), c.shown(at))
	}
	req, err := http.NewRequestWithContext(ctx, s.verb(), at, strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: the request cannot be made", s.verb(), c.shown(at))
	}
	req.Header.Set("User-Agent", "lastcall")
	req.Header.Set("Cache-Control", "no-cache")
	if looksLikeJSON(body) {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range append(append([]header(nil), c.file.headers...), s.headers...) {
		value, err := h.value.expand(values, inHeader)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", h.name, err)
		}
		if h.name == "Host" {
			req.Host = value
		}
		req.Header.Set(h.name, value)
	}
	return req, c.addToken(req, s, values)
}

// addToken adds the token to req. It reads the file again for each call: a
// projected service account token is replaced about every hour.
func (c *caller) addToken(req *http.Request, s *step, values values) error {
	t := c.file.token
	if s.token.file.raw != "" {
		t = s.token
	}
	path, err := t.file.expand(values, nil)
	if err != nil || path == "" {
		return err
	}
	secret, err := fetch.ReadToken("token_file", path)
	switch {
	case err != nil:
		return err
	case t.header == "":
		req.Header.Set("Authorization", "Bearer "+secret)
	default:
		req.Header.Set(t.header, secret)
	}
	return nil
}

// refusal returns the error for an answer with an unexpected code.
func (c *caller) refusal(s *step, at string, a answer) error {
	text := fmt.Sprintf("%s %s answered %d %s", s.verb(), c.shown(at), a.code, http.StatusText(a.code))
	switch {
	case a.code/100 == 3:
		text += ": redirects are not followed: set the address that it redirects to"
	case a.code == http.StatusUnauthorized, a.code == http.StatusForbidden:
		text += ": check the credentials, and whether they may do this"
	}
	if excerpt := c.excerpt(a.body); excerpt != "" {
		text += ": " + excerpt
	}
	return errors.New(text)
}

// excerpt returns the beginning of an answer for messages.
func (c *caller) excerpt(body []byte) string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), 4*maxExcerpt)]), "?")))
	text = hide(text, c.secrets)
	if runes := []rune(text); len(runes) > maxExcerpt {
		text = string(runes[:maxExcerpt]) + "…"
	}
	return text
}

// shown returns an address for messages: without its userinfo, query and
// secrets.
func (c *caller) shown(at string) string {
	u, err := url.Parse(at)
	if err != nil {
		return "an address that is no URL"
	}
	return hide(fetch.Public(u), c.secrets)
}

// explain adds to an error of the transport what to do about it.
func (c *caller) explain(err error, limit time.Duration) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // the wrapper repeats the address, including the query
	}
	var authority x509.UnknownAuthorityError
	var wanted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &authority), errors.As(err, &wanted):
		return fmt.Errorf("set tls.ca to the authority of the server's certificate: %w", err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v: %w", limit.Round(time.Millisecond), err)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the connection was closed without an answer: %w", err)
	}
	return err
}
