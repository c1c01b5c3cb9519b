// Package fetch reads small status pages of programs in the pod. It takes an
// address and returns the bytes of the answer, within limits of time and size.
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

// idle is how long a connection is kept for the next reading. It is longer than the
// interval between the polls of a drain (100 ms), but not much: a proxy that stops
// must not have to wait for its last idle client.
const idle = time.Second

// NewClient returns a client for programs in the pod. It connects directly, ignores
// proxies named by the environment, and follows no redirects: the result is the
// answer of the given address, or an error.
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

// Get reads the page at address. The answer must have the status 200 and at most
// limit bytes. The context limits the whole call. Errors show the address without
// its userinfo and query, which may contain secrets, and say what to check. The
// caller adds the name of the variable that the address came from.
func Get(ctx context.Context, client *http.Client, address string, limit int64) ([]byte, error) {
	return do(ctx, client, http.MethodGet, address, limit)
}

// Post is like Get, for a call that changes something. It sends no body.
func Post(ctx context.Context, client *http.Client, address string, limit int64) ([]byte, error) {
	return do(ctx, client, http.MethodPost, address, limit)
}

func do(ctx context.Context, client *http.Client, method, address string, limit int64) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the address is not a URL") // the error of url.Parse contains the secrets
	}
	req, err := http.NewRequestWithContext(ctx, method, address, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%s %s: the request cannot be made", method, Public(u))
	}
	page, err := send(client, req, Public(u), "", limit)
	return page.Body, err
}

// send makes one call. Its errors show the address as shown, which contains no
// secrets.
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

// late adds the time limit to the error of a call that ran out of time.
func late(ctx context.Context, began time.Time, err error) error {
	if deadline, ok := ctx.Deadline(); ok && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the answer was not complete within the time limit of %v: %w", deadline.Sub(began).Round(100*time.Millisecond), err)
	}
	return err
}

// maxAge is how old an answer may be according to its Date. Dates have whole
// seconds, servers may reuse one for another second, and a server that gets little
// CPU time may reuse it for longer.
const maxAge = 10 * time.Second

// stored returns an error if the answer comes from a cache: it shows the work in
// flight at the time it was stored, not now. A Date in the future only means that
// the clocks differ.
func stored(header http.Header, now time.Time) error {
	if age := header.Get("Age"); age != "" && strings.Trim(age, "0 ") != "" {
		return fmt.Errorf("the answer is a stored copy (its Age is %.20q): use the address of the program itself, or exclude this page from the cache in front of it", age)
	}
	date, err := http.ParseTime(header.Get("Date"))
	if age := now.Sub(date); err == nil && age > maxAge {
		return fmt.Errorf("the answer is dated %v ago: it is a stored copy, or the clocks of this machine and of the program's differ", age.Round(time.Second))
	}
	return nil
}

// size formats a number of bytes for people.
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
	Prefix string // of the name of a …_TOKEN_FILE variable; empty if there is none
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

// Refused reports whether err means that nothing listens at the address: the
// connection was refused, or the unix socket does not exist. A missing file of a
// setting says nothing about the program.
func Refused(err error) bool {
	var connecting *net.OpError
	return errors.As(err, &connecting) && connecting.Op == "dial" &&
		(errors.Is(connecting, syscall.ECONNREFUSED) || errors.Is(connecting, fs.ErrNotExist))
}

// ParseURL checks a variable that holds the address of a page. Its error contains
// the variable's name and an example of a valid value, but never the value, which
// may contain secrets.
func ParseURL(variable, value, example string) (*url.URL, error) {
	u, ok := Address(value)
	if !ok {
		return nil, fmt.Errorf("%s must be an http:// or https:// URL, such as %s, with /, ?, # and @ in a user or password percent-encoded", variable, example)
	}
	return u, nil
}

// Address parses a URL that can be called: http or https, with a host, with no port
// or one from 1 to 65535, and without a fragment, which is never sent. An @ after
// the host is refused: an unencoded / ? or # ends a password early, and the rest of
// it would be shown as a path. Only this function decides whether a value in the
// environment is a URL.
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

// Port returns the port of u, or the default port of its scheme.
func Port(u *url.URL) int {
	if port, err := strconv.Atoi(u.Port()); err == nil {
		return port
	}
	if u.Scheme == "https" {
		return 443
	}
	return 80
}

// Local reports whether host, as written in a URL, is in the pod with the address
// podIP. If it is, the pod's network namespace shows its sockets.
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

// cause returns the error wrapped by an error of net/http's client, whose text
// contains the full address with its query.
func cause(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
