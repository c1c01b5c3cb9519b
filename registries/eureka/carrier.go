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
)

// maxAnswer bounds one answer, unpacked: some 40,000 instances. Answers are
// read as they come and never held as a whole.
const maxAnswer = 64 << 20

// newTransport is what calls go through in the end. Connections are not kept:
// each call finds out anew whether the peer is there, and nothing idles
// between drains. There is no proxy.
func newTransport(roots *x509.CertPool, insecure bool) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{}).DialContext,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			RootCAs:            roots,
			InsecureSkipVerify: insecure, //nolint:gosec // LASTCALL_EUREKA_INSECURE asks for it
		},
	}
}

// carrier carries the one request of a call: it binds it to the call's
// context, and adds what the library has no means for. The credentials are
// added only here, so that nothing that the library logs can hold them.
type carrier struct {
	ctx    context.Context //nolint:containedctx // the library takes none
	peer   *peer
	accept string
	read   func(*http.Response) error
}

func (c *carrier) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(c.ctx)
	req.Header.Set("Accept", c.accept)
	req.Header.Set("User-Agent", "lastcall")
	if user := c.peer.user; user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	answer, err := c.peer.transport.RoundTrip(req)
	if err != nil {
		return nil, explain(err)
	}
	defer func() { _ = answer.Body.Close() }() // only read
	if answer.StatusCode/100 != 2 {
		return nil, &statusError{code: answer.StatusCode, to: answer.Header.Get("Location"), user: c.peer.user != nil}
	}
	if c.read != nil {
		answer.Body = http.MaxBytesReader(nil, answer.Body, maxAnswer)
		if err := c.read(answer); err != nil {
			if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
				err = fmt.Errorf("the answer is larger than %d MiB, which is not read to its end", maxAnswer>>20)
			}
			return nil, fmt.Errorf("reading the answer: %w", err)
		}
	}
	// What is left of the body is the library's to read: nothing.
	return &http.Response{
		Status: answer.Status, StatusCode: answer.StatusCode, Header: answer.Header,
		Proto: answer.Proto, ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, Request: req,
	}, nil
}

// explain adds what to do about a failure to get an answer.
func explain(err error) error {
	if cert := (*tls.CertificateVerificationError)(nil); errors.As(err, &cert) {
		return fmt.Errorf("%w: set LASTCALL_EUREKA_CA_FILE to the authority that signed the server's certificate", err)
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the connection was closed without an answer: %w", err)
	}
	return err
}

// isDown tells that a server is not there, as opposed to not known: nobody
// listens at its address, or its name is not known.
func isDown(err error) bool {
	var dns *net.DNSError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &dns) && dns.IsNotFound
}

// statusError is an answer other than 2xx.
type statusError struct {
	code int
	to   string // where a redirect leads
	user bool   // credentials were sent
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("status %d %s", e.code, http.StatusText(e.code))
	switch {
	case e.code/100 == 3:
		s += ": redirects are not followed"
		if to, err := url.Parse(e.to); err == nil && to.Host != "" {
			s += "; if " + to.Scheme + "://" + to.Host + " is the server, put it into LASTCALL_EUREKA_URLS"
		}
	case e.code == http.StatusUnauthorized && e.user:
		s += ": the user or the password in LASTCALL_EUREKA_URLS is wrong (special characters must be percent-encoded)"
	case e.code == http.StatusUnauthorized:
		s += ": the server wants a user and a password: put USER:PASSWORD@ before its host in LASTCALL_EUREKA_URLS"
	case e.code == http.StatusForbidden:
		s += ": the user may not do this, or the server's CSRF protection is not switched off for /eureka/**, or it has just started and waits for its peers"
	case e.code == http.StatusBadRequest:
		s += ": Tomcat and others refuse a slash or backslash in an instance's id or application; give the app an id without"
	case e.code == http.StatusNotFound:
		s += ": not registered, or its lease has run out"
	case e.code >= 500:
		s += ": the server's log says why"
	}
	return s
}

func hasStatus(err error, code int) bool {
	var status *statusError
	return errors.As(err, &status) && status.code == code
}

func isNotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }
