// Package fetch reads the small pages on which programs in the pod tell their
// state: an address in, the bytes of its answer out, bounded in time and size.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// idle is how long a connection is kept for the next reading. It spans the
// polls of a drain, which come every 100 ms, and no more: a proxy that stops
// must not have to wait for its last idle client.
const idle = time.Second

// NewClient returns a client for programs in the pod. It asks them directly,
// whatever proxy the environment names, and follows no redirect: what an
// address answers is what was asked for, or an error.
func NewClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil,
			MaxConnsPerHost:        2,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        idle,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Get reads the page at address, which is to answer 200 with at most limit
// bytes. The context bounds the whole of it. Its errors name the address
// without its userinfo and query, where secrets may be, and say what to check;
// the caller adds which variable the address came from.
func Get(ctx context.Context, client *http.Client, address string, limit int64) ([]byte, error) {
	return do(ctx, client, http.MethodGet, address, limit)
}

// Post is Get for a call that changes something. It sends no body.
func Post(ctx context.Context, client *http.Client, address string, limit int64) ([]byte, error) {
	return do(ctx, client, http.MethodPost, address, limit)
}

func do(ctx context.Context, client *http.Client, method, address string, limit int64) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the address is not a URL") // what url.Parse says repeats its secrets
	}
	req, err := http.NewRequestWithContext(ctx, method, address, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%s %s: the request cannot be made", method, Public(u))
	}
	page, err := send(client, req, Public(u), "", limit)
	return page.Body, err
}

// send makes one call. Its errors name shown, the address without secrets.
func send(client *http.Client, req *http.Request, shown, prefix string, limit int64) (Page, error) {
	began := time.Now()
	req.Header.Set("User-Agent", "lastcall")
	req.Header.Set("Cache-Control", "no-cache")
	fail := func(format string, args ...any) (Page, error) {
		return Page{}, fmt.Errorf("%s %s: "+format, append([]any{req.Method, shown}, args...)...)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fail("%w", late(req.Context(), began, cause(err)))
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		return Page{}, &StatusError{Method: req.Method, URL: shown, Code: resp.StatusCode, Prefix: prefix}
	}
	if req.Method == http.MethodGet {
		if err := stored(resp.Header, time.Now()); err != nil {
			return fail("%w", err)
		}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return fail("reading the answer: %w", late(req.Context(), began, err))
	}
	if int64(len(body)) > limit {
		return fail("the answer is longer than %s, which is the most that is read; is this the right page?", size(limit))
	}
	return Page{Body: body, Header: resp.Header}, nil
}

// late adds to the error of a call that ran out of time how long it had.
func late(ctx context.Context, began time.Time, err error) error {
	if deadline, ok := ctx.Deadline(); ok && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the whole answer did not come within %v, which is the longest that is waited: %w", deadline.Sub(began).Round(100*time.Millisecond), err)
	}
	return err
}

// maxAge is how old an answer may be by its own date. Dates have whole seconds,
// servers may use one for a second longer, and one that gets little of the
// processor for some more.
const maxAge = 10 * time.Second

// stored returns an error for the answer of a cache, which says what was in
// flight when it was stored, and not what is now. A date that is ahead says
// that the clocks differ, and nothing more.
func stored(header http.Header, now time.Time) error {
	if age := header.Get("Age"); age != "" && strings.Trim(age, "0 ") != "" {
		return fmt.Errorf("the answer is a stored copy (its Age is %.20q): ask the program itself, or have the cache on the way leave this page out", age)
	}
	date, err := http.ParseTime(header.Get("Date"))
	if age := now.Sub(date); err == nil && age > maxAge {
		return fmt.Errorf("the answer is dated %v ago: it is a stored copy, or the clocks of this machine and of the program's differ", age.Round(time.Second))
	}
	return nil
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d bytes (%d MiB)", n, n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d bytes (%d KiB)", n, n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// StatusError is an answer other than 200.
type StatusError struct {
	Method string
	URL    string // without userinfo and query
	Code   int
	Prefix string // of the variable _TOKEN_FILE; empty where there is none
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s %s: it answered %d %s", e.Method, e.URL, e.Code, http.StatusText(e.Code))
	switch {
	case e.Code >= 300 && e.Code < 400:
		return s + ": redirects are not followed; set the address that it redirects to"
	case e.Code == http.StatusUnauthorized:
		s += ": set its credentials in the URL, as http://user:password@host/" //nolint:gosec // an example
		if e.Prefix != "" {
			s += ", or a bearer token by " + e.Prefix + "_TOKEN_FILE"
		}
		return s
	case e.Code == http.StatusForbidden:
		return s + ": allow requests from this pod there, or set other credentials in the URL"
	case e.Code == http.StatusNotFound:
		return s + ": the page is not at this path, or not switched on in the program"
	case e.Code == http.StatusMethodNotAllowed:
		return s + ": another program seems to answer at this address"
	case e.Code >= 500:
		return s + ": the program that serves the page fails; see its log"
	}
	return s
}

// Refused reports whether err says that nothing listens at the address: the
// connection was refused, or the unix socket is not there. A file of a setting
// that is not there says nothing of the program.
func Refused(err error) bool {
	var connecting *net.OpError
	return errors.As(err, &connecting) && connecting.Op == "dial" &&
		(errors.Is(connecting, syscall.ECONNREFUSED) || errors.Is(connecting, fs.ErrNotExist))
}

// ParseURL checks the address of a page as the variable holds it. Its error
// names the variable and an example of what would be right, never the value,
// in which secrets may be.
func ParseURL(variable, value, example string) (*url.URL, error) {
	u, ok := Address(value)
	if !ok {
		return nil, fmt.Errorf("%s must be an http:// or https:// URL, such as %s, with /, ?, # and @ in a user or password percent-encoded", variable, example)
	}
	return u, nil
}

// Address reads a URL that a call can be made to: http or https, with a host,
// with a port from 1 to 65535 or none, and without a fragment, which is never
// sent. An @ after the host is refused: a / ? or # that is not encoded ends a
// password early, and what follows it would be shown as a path. This is the one
// function that decides what is a URL in the environment.
func Address(value string) (*url.URL, bool) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !validPort(u) {
		return nil, false
	}
	if u.Fragment != "" || strings.Contains(u.EscapedPath()+u.RawQuery, "@") {
		return nil, false
	}
	return u, true
}

func validPort(u *url.URL) bool {
	if u.Port() == "" {
		return u.Host == u.Hostname() || u.Host == "["+u.Hostname()+"]" // and not "host:"
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && port > 0
}

// Port returns the port that u is asked at.
func Port(u *url.URL) int {
	if port, err := strconv.Atoi(u.Port()); err == nil {
		return port
	}
	if u.Scheme == "https" {
		return 443
	}
	return 80
}

// Local reports whether host, as written in a URL, is in the pod whose address
// is podIP, so that the sockets of the pod's network namespace show it.
func Local(host, podIP string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && (ip.IsLoopback() || ip.IsUnspecified() || ip.Equal(net.ParseIP(podIP)))
}

// Public returns u without its userinfo, query and fragment.
func Public(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// cause returns what is below an error of net/http's client, which names the
// address itself, query and all.
func cause(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
