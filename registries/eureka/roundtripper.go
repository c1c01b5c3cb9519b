package eureka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

const (
	// maxAnswer limits one answer, uncompressed: some 40,000 instances.
	maxAnswer = 64 << 20
	// maxInstance limits what is read from one instance to the next, and
	// thereby the memory: answers are streamed and never held as a whole.
	maxInstance = 1 << 20
)

// bounded is the body of an answer.
type bounded struct {
	io.Reader
	total int
	since int // read since the last instance
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.total > maxAnswer {
		return 0, fmt.Errorf("the answer is larger than %d MiB", maxAnswer>>20)
	}
	if b.since > maxInstance {
		return 0, fmt.Errorf("the answer holds something larger than %d MiB that is no list of instances", maxInstance>>20)
	}
	n, err := b.Reader.Read(p)
	b.total, b.since = b.total+n, b.since+n
	return n, err
}

// keepFor is how long an idle connection is kept. It is longer than the longest
// interval between two queries in a drain, so one connection, with one TLS
// handshake, serves the whole drain of a server.
const keepFor = 15 * time.Second

// newTransport returns the transport that sends the calls. It uses no proxy. It
// keeps one connection per server for the length of a drain. If that connection
// has been closed meanwhile, the request is sent once more on a new one. So a
// server that is down can still be distinguished from one that does not answer.
func newTransport(roots *x509.CertPool, insecure bool) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{}).DialContext,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        keepFor,
		MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			RootCAs:            roots,
			InsecureSkipVerify: insecure, //nolint:gosec // LASTCALL_EUREKA_INSECURE asks for it
		},
	}
}

// roundTripper makes the one request of a call. It binds the request to the
// call's context, and adds what the library does not support. It adds the
// credentials only here, so that the library cannot log them. Answers are
// compressed if the server supports that; the transport decompresses them.
type roundTripper struct {
	ctx    context.Context // the library has no parameter for it
	peer   *peer
	accept string
	read   func(http.Header, *bounded) error

	refused *statusError // an answer other than 2xx
}

func (c *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(c.ctx)
	req.Header.Set("Accept", c.accept)
	req.Header.Set("User-Agent", "lastcall")
	if req.Method == http.MethodPost {
		req.Header.Set("Content-Type", asJSON) // the library sets the type of a form
	}
	// All calls are idempotent: if the server has closed the connection
	// meanwhile, the transport repeats the request. A header without a value is
	// not sent.
	req.Header["Idempotency-Key"] = []string{}
	if user := c.peer.user; user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	answer, err := c.peer.transport.RoundTrip(req)
	if err != nil {
		return nil, explain(err)
	}
	defer func() { _ = answer.Body.Close() }() // only read
	body := &bounded{Reader: answer.Body}
	defer func() {
		var busy error
		if c.refused != nil {
			busy = c.refused
		}
		c.peer.busy.Answered(answer.StatusCode, answer.Header, busy)
	}()
	if answer.StatusCode/100 != 2 {
		c.refused = &statusError{code: answer.StatusCode, to: answer.Header.Get("Location"), user: c.peer.user != nil}
		_, _ = io.CopyN(io.Discard, answer.Body, maxComplaint) // so that the connection can be kept
		if answer.StatusCode/100 == 3 {
			return nil, c.refused // the library would follow it, with a 307 endlessly
		}
	} else if err := c.read(answer.Header, body); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	// The unread rest is already on its way, and costs less than a new
	// connection. An error here does not matter: the relevant part has been
	// read.
	_, _ = io.CopyN(io.Discard, answer.Body, int64(max(maxAnswer-body.total, 0)))
	// The body has been read, so the library gets none.
	return &http.Response{
		Status: answer.Status, StatusCode: answer.StatusCode, Header: answer.Header,
		Proto: answer.Proto, ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, Request: req,
	}, nil
}

// maxComplaint limits how much of an error response is read.
const maxComplaint = 64 << 10

// explain adds to an error of the transport what to do about it.
func explain(err error) error {
	if cert := (*tls.CertificateVerificationError)(nil); errors.As(err, &cert) {
		return fmt.Errorf("set LASTCALL_EUREKA_CA_FILE to the authority of the server's certificate: %w", err)
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the connection was closed without an answer: %w", err)
	}
	return err
}

// isDown reports whether err shows that a server is not there: nobody listens
// at its address, or its name does not exist. A name server that refuses proves
// nothing about the server.
func isDown(err error) bool {
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		return dns.IsNotFound
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// statusError is an answer other than 2xx.
type statusError struct {
	code int
	to   string // where a redirect leads
	user bool   // credentials were sent
}

// Error begins with what to do: reports show only the first words.
func (e *statusError) Error() string {
	var s string
	switch {
	case e.code/100 == 3:
		s = "redirects, which is not followed"
		if to, err := url.Parse(e.to); err == nil && to.Host != "" {
			s = "redirects to " + to.Scheme + "://" + to.Host + ", which is not followed: set LASTCALL_EUREKA_URLS to that address"
		}
	case e.code == http.StatusUnauthorized && e.user:
		s = "wrong user or password in LASTCALL_EUREKA_URLS; special characters must be percent-encoded"
	case e.code == http.StatusUnauthorized:
		s = "wants USER:PASSWORD@ before its host in LASTCALL_EUREKA_URLS"
	case e.code == http.StatusForbidden:
		s = "refused: by the user's rights, by CSRF protection (switch it off for /eureka/**), or because it has just started"
	case e.code == http.StatusBadRequest:
		s = "Tomcat accepts no slash or backslash in an instance's id: register one without them"
	case e.code == http.StatusNotFound:
		s = "not registered, or its lease has run out"
	case e.code >= 500:
		s = "failed: see the server's log"
	default:
		s = "unexpected answer"
	}
	return fmt.Sprintf("%s (status %d)", s, e.code)
}

func hasStatus(err error, code int) bool {
	var status *statusError
	return errors.As(err, &status) && status.code == code
}

func isNotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }
