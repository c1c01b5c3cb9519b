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
	what := method + " " + Public(u)
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: the request cannot be made", what)
	}
	req.Header.Set("User-Agent", "lastcall")
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, cause(err))
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		return nil, &StatusError{Method: method, URL: Public(u), Code: resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: reading the answer: %w", what, err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%s: the answer is longer than %d bytes; is this the right page?", what, limit)
	}
	return body, nil
}

// StatusError is an answer other than 200.
type StatusError struct {
	Method string
	URL    string // without userinfo and query
	Code   int
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s %s: it answered %d %s", e.Method, e.URL, e.Code, http.StatusText(e.Code))
	switch {
	case e.Code >= 300 && e.Code < 400:
		return s + ": redirects are not followed; set the address that it redirects to"
	case e.Code == http.StatusUnauthorized:
		return s + ": set its credentials in the URL, as http://user:password@host/"
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

// Refused tells whether err says that nothing listens at the address: the
// connection was refused, or the unix socket is not there.
func Refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// ParseURL checks the address of a page as the variable holds it. Its error
// names the variable and an example of what would be right, never the value,
// in which secrets may be.
func ParseURL(variable, value, example string) (*url.URL, error) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !validPort(u) {
		return nil, fmt.Errorf("%s must be an http:// or https:// URL, such as %s", variable, example)
	}
	return u, nil
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

// Local tells whether host, as written in a URL, is in the pod whose address
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
