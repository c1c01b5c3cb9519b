package nacos

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"lastcall/internal/fetch"
	"lastcall/internal/pace"
)

const (
	// requestLimit is the timeout of one request. It leaves room in the budget
	// for another try if a server hangs. Overloaded servers have been seen to
	// take 4 s.
	requestLimit = 5 * time.Second
	// silentLimit is the timeout of most requests to a server that has been
	// silent for long: one request every probeEvery may take as long as any
	// other.
	silentLimit = 500 * time.Millisecond
	probeEvery  = 10 * time.Second
	// silence is how long a server must be silent before it counts as serving
	// nobody: clients leave a silent server after 20 s.
	silence = 30 * time.Second
	// maxAnswer limits the body of an answer that is not a list, in bytes.
	maxAnswer = 1 << 20
	// keepIdle is how long an idle connection is kept. It is slightly longer
	// than the pauses of a drain.
	keepIdle = 15 * time.Second
)

// answered is the known answer to a yes-or-no question.
type answered int

const (
	notKnown answered = iota
	yes
	no
)

// server is one Nacos server. Its methods are safe for concurrent use.
type server struct {
	url            string // with its context path, without a trailing slash
	client         *http.Client
	user, password string
	now            func() time.Time
	// limit is the timeout of a request, and silentLimit that of a request to a
	// server that has been silent for long.
	limit, silentLimit time.Duration
	busy               pace.Busy
	// others is the version that was last found, at any server.
	others *atomic.Int32
	// gate admits one goroutine at a time to work that is done once for all of
	// them: logging in, and determining the version.
	gate chan struct{}

	mu sync.Mutex // guards what follows
	// version is the version of the server's API; 0: not known.
	version version
	token   token
	// marks records whether the server has metadata/batch.
	marks answered
	// silentSince is when the server first failed to answer; zero: its last
	// request was answered.
	silentSince time.Time
	// askedAt is when a request last had the full timeout.
	askedAt time.Time
}

// enter passes the gate and holds it until leave is called. It fails if ctx
// ends first.
func (s *server) enter(ctx context.Context) (leave func(), err error) {
	select {
	case s.gate <- struct{}{}:
		return func() { <-s.gate }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func newClient(caFile string) (*http.Client, error) {
	t := &http.Transport{
		Proxy:                  nil,
		DialContext:            (&net.Dialer{Timeout: requestLimit}).DialContext,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        keepIdle,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if caFile != "" {
		roots, err := fetch.ReadCAs("LASTCALL_NACOS_CA_FILE", caFile)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	}
	return &http.Client{
		Transport: t,
		// Following a redirect would send the token to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// request is one request to a server. Its parameters are sent in the query,
// because servers do not read a form in the body of a PATCH.
type request struct {
	method, path string
	query        url.Values
	// read reads the body of an answer with status 200, if it may be long. If
	// it is nil, the body is part of the answer.
	read func(io.Reader) error
}

func (r request) String() string { return r.method + " " + r.path }

// answer is the result of a request.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// call sends one request as the configured user. A token that the server does
// not accept is renewed once: servers forget tokens when their key is changed.
func (s *server) call(ctx context.Context, r request) (answer, error) {
	value, err := s.currentToken(ctx, "")
	if err != nil {
		return answer{}, err
	}
	a, err := s.ask(ctx, r, value, nil)
	if err != nil || a.code != http.StatusUnauthorized && a.code != http.StatusForbidden {
		return a, err
	}
	renewed, err := s.currentToken(ctx, value)
	if err != nil || renewed == value {
		return a, err // a new token is refused too: the user lacks the right
	}
	return s.ask(ctx, r, renewed, nil)
}

// ask sends one request. form, if not empty, is its body.
func (s *server) ask(ctx context.Context, r request, token string, form url.Values) (answer, error) {
	// A deletion is always sent: there may be no time for another try.
	if err := s.busy.Err(); err != nil && r.method != http.MethodDelete {
		return answer{}, err
	}
	limit := s.nextLimit()
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	at := s.url + r.path
	if len(r.query) > 0 {
		at += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(bounded, r.method, at, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, fmt.Errorf("%v: the request cannot be made", r)
	}
	// All calls are idempotent: if the server has closed the connection
	// meanwhile, the transport repeats the request. A header without a value is
	// not sent.
	req.Header["Idempotency-Key"] = []string{}
	req.Header.Set("User-Agent", "lastcall")
	req.Header.Set("Accept", "application/json, text/plain")
	if r.method != http.MethodGet {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Accesstoken", token)
	}
	a, err := s.exchange(req, r.read)
	if err == nil {
		s.noteSilence(false)
		var busy error
		if a.code == http.StatusTooManyRequests || a.code == http.StatusServiceUnavailable {
			busy = s.refusal(r, a)
		}
		s.busy.Answered(a.code, a.header, busy)
		return a, nil
	}
	if ended := ctx.Err(); ended != nil {
		if !errors.Is(err, ended) {
			err = fmt.Errorf("%w: %w", ended, err)
		}
		return answer{}, fmt.Errorf("%v: %w", r, err)
	}
	s.noteSilence(isSilence(err))
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v: %w", limit, err)
	}
	return answer{}, fmt.Errorf("%v: %w", r, err)
}

func (s *server) exchange(req *http.Request, read func(io.Reader) error) (answer, error) {
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{}, explain(err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode == http.StatusOK && read != nil {
		return answer{code: resp.StatusCode, header: resp.Header}, read(resp.Body)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return answer{}, fmt.Errorf("reading the answer: %w", err)
	case len(body) > maxAnswer:
		return answer{}, fmt.Errorf("the answer is longer than %d MiB", maxAnswer>>20)
	}
	return answer{resp.StatusCode, resp.Header, body}, nil
}

// nextLimit returns the timeout of the next request.
func (s *server) nextLimit() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if !s.silentSince.IsZero() && now.Sub(s.silentSince) >= silence && now.Sub(s.askedAt) < probeEvery {
		return s.silentLimit
	}
	s.askedAt = now
	return s.limit
}

// noteSilence records whether the server failed to answer.
func (s *server) noteSilence(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !silent:
		s.silentSince = time.Time{}
	case s.silentSince.IsZero():
		s.silentSince = s.now()
	}
}

// isSilent reports whether the server has been silent for at least since.
func (s *server) isSilent(since time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.silentSince.IsZero() && s.now().Sub(s.silentSince) >= since
}

// isSilence reports whether err means that a server sent nothing. A server that
// refuses connections is down. One that closes them, or that has a certificate
// that is not trusted here, may still serve others.
func isSilence(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout() ||
		errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// isDown reports whether err means that a server is not there: nobody listens
// at its address, or its name does not exist.
func isDown(err error) bool {
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		return dns.IsNotFound
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
