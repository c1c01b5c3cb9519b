package fetch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// Settings are the user's settings for the pages of one program.
type Settings struct {
	Variable string // names the variable of the address: LASTCALL_ENVOY_ADMIN
	Address  string // its value: an http:// or https:// URL, or unix:///SOCKET, or unix:///SOCKET:/PAGE
	Example  string // a valid value, for errors
	Prefix   string // such as LASTCALL_ENVOY, if LASTCALL_ENVOY_CA_FILE and LASTCALL_ENVOY_TOKEN_FILE exist

	CAFile    string // PEM file of authorities to trust in addition to the system's; read for each connection
	TokenFile string // file of a bearer token; read for each call
}

// Source is a page, or several pages of one program, that is read repeatedly: from
// a URL or from a unix socket.
type Source struct {
	url    *url.URL // the page; for a socket, its host is localhost
	socket string   // path of the unix socket; empty if there is none
	client *http.Client
	token  tokenFile
	prefix string
	header http.Header // sent with each request
}

// Page is an answer.
type Page struct {
	Body   []byte
	Header http.Header
}

// Open checks the settings and reads the files that they name for the first time.
// It makes no call. It returns all mistakes, each with the name of its variable.
// Errors never contain the address, which may contain secrets.
func Open(settings Settings) (*Source, error) {
	s := &Source{client: NewClient(), prefix: settings.Prefix, header: http.Header{}}
	transport, _ := s.client.Transport.(*http.Transport)
	var mistakes []error
	var err error
	if strings.HasPrefix(settings.Address, "unix:") {
		s.url, s.socket, err = parseSocket(settings)
		transport.DialContext = dialSocket(s.socket)
	} else {
		s.url, err = ParseURL(settings.Variable, settings.Address, settings.Example)
	}
	mistakes = append(mistakes, err)
	if settings.CAFile != "" {
		authorities := caFile{variable: settings.Prefix + "_CA_FILE", path: settings.CAFile}
		if _, err := authorities.read(); err != nil {
			mistakes = append(mistakes, err)
		}
		if s.url != nil && s.url.Scheme != "https" {
			mistakes = append(mistakes, fmt.Errorf("%s is set, and %s is not an https:// URL: nothing would be verified", authorities.variable, settings.Variable))
		}
		transport.DialTLSContext = authorities.dial
	}
	if settings.TokenFile != "" {
		s.token = tokenFile{variable: settings.Prefix + "_TOKEN_FILE", path: settings.TokenFile}
		if _, err := s.token.read(); err != nil {
			mistakes = append(mistakes, err)
		}
		if s.url != nil && s.url.User != nil {
			mistakes = append(mistakes, fmt.Errorf("%s is set, and %s holds a user: only one of them can be sent", s.token.variable, settings.Variable))
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return s, nil
}

// At returns the source of another page of the same program. page is joined to the
// path of the address, and query is the encoded query.
func (s *Source) At(page, query string) *Source {
	other := *s
	other.url = s.url.JoinPath(page)
	other.url.RawQuery = query
	return &other
}

// ShareConnections makes s use the connections of other, which must have the same
// settings except for the page. Requests then follow one another on a connection,
// and a program has finished one before it sees the next.
func (s *Source) ShareConnections(other *Source) { s.client = other.client }

// With returns a copy of the source that sends one more header.
func (s *Source) With(name, value string) *Source {
	other := *s
	other.header = s.header.Clone()
	other.header.Set(name, value)
	return &other
}

// Get is like Read, but returns only the body.
func (s *Source) Get(ctx context.Context, limit int64) ([]byte, error) {
	page, err := s.Read(ctx, limit)
	return page.Body, err
}

// Read reads the page. The answer must come before ctx ends, have the status 200
// and at most limit bytes, and must not be a stored copy. Errors show the address
// without its userinfo and query, and say what to check. The caller adds the name
// of the variable that the address came from.
func (s *Source) Read(ctx context.Context, limit int64) (Page, error) {
	return s.call(ctx, http.MethodGet, limit)
}

// Post is like Get, for a call that changes something. It sends no body.
func (s *Source) Post(ctx context.Context, limit int64) ([]byte, error) {
	page, err := s.call(ctx, http.MethodPost, limit)
	return page.Body, err
}

func (s *Source) call(ctx context.Context, method string, limit int64) (Page, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url.String(), http.NoBody)
	if err != nil {
		return Page{}, fmt.Errorf("%s %s: the request cannot be made", method, s.public())
	}
	for name, values := range s.header {
		req.Header[name] = values
	}
	if s.token.path != "" {
		token, err := s.token.read()
		if err != nil {
			return Page{}, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	page, err := send(s.client, req, s.public(), s.prefix, limit)
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) && s.prefix != "" {
		err = fmt.Errorf("%w: set %s_CA_FILE to the authority of the program's certificate", err, s.prefix)
	}
	return page, err
}

// public returns the address for messages, without its userinfo and query.
func (s *Source) public() string {
	if s.socket == "" {
		return Public(s.url)
	}
	shown := "unix://" + s.socket
	if s.url.Path != "" && s.url.Path != "/" {
		shown += ":" + s.url.EscapedPath()
	}
	return shown
}

// Local reports whether the program is in the pod with the address podIP. If it is,
// the pod's network namespace shows its sockets.
func (s *Source) Local(podIP string) bool {
	return s.socket != "" || Local(s.url.Hostname(), podIP)
}

// Port returns the TCP port of the address; 0 for a unix socket.
func (s *Source) Port() int {
	if s.socket != "" {
		return 0
	}
	return Port(s.url)
}

// Query reports whether the address has a query.
func (s *Source) Query() bool { return s.url.RawQuery != "" }

// CloseIdleConnections closes the connection that is kept for the next call.
func (s *Source) CloseIdleConnections() { s.client.CloseIdleConnections() }

// parseSocket parses unix:///SOCKET:/PAGE, similar to nginx's proxy_pass. The colon
// ends the socket's path. The colon and the page may be missing.
func parseSocket(settings Settings) (page *url.URL, socket string, err error) {
	u, err := url.Parse(settings.Address)
	if err == nil && u.Host == "" && u.User == nil {
		var at string
		socket, at, _ = strings.Cut(u.Path, ":")
		if path.IsAbs(socket) && !strings.HasSuffix(socket, "/") && (at == "" || strings.HasPrefix(at, "/")) {
			return &url.URL{Scheme: "http", Host: "localhost", Path: at, RawQuery: u.RawQuery}, socket, nil
		}
	}
	return nil, "", fmt.Errorf("%s must be unix:// and a socket's absolute path, with the page's path after a colon if need be, such as unix:///run/app/admin.sock:/metrics, or a URL such as %s", settings.Variable, settings.Example)
}
