package consul

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/internal/pace"
)

const (
	// longestAnswer limits the body of an answer, in bytes. The plug-in
	// requests a few instances with their checks, some kilobytes.
	longestAnswer = 4 << 20
	// longestComplaint is the same for error responses.
	longestComplaint = 4 << 10
	// tokenHeader carries the ACL token.
	tokenHeader = "X-Consul-Token" //nolint:gosec // a header's name
)

// httpClient returns the HTTP client for all calls.
func httpClient(server address, cfg Config, verify bool) (*http.Client, error) {
	tlsConfig, err := tlsConfig(cfg, verify)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	next := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConns:        2,
		IdleConnTimeout:     30 * time.Second,
	}
	if server.socket != "" {
		next.Proxy = nil
		next.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", server.socket)
		}
	}
	return &http.Client{
		Transport: &transport{next: next, tokenFile: cfg.TokenFile},
		// Following a redirect would send the token to another host, and turn a
		// PUT into a GET that succeeds.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// tlsConfig reads the variables about TLS. Its error joins all mistakes in
// them.
func tlsConfig(cfg Config, verify bool) (*tls.Config, error) {
	var mistakes []error
	if (cfg.ClientCert == "") != (cfg.ClientKey == "") {
		mistakes = append(mistakes, errors.New("CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY: one of them is not set; set both, or none"))
	}
	for _, part := range []struct {
		name string
		tls  *api.TLSConfig
	}{
		{"CONSUL_CACERT: must be a file of PEM certificates", &api.TLSConfig{CAFile: cfg.CACert}},
		{"CONSUL_CAPATH: must be a folder of PEM certificates", &api.TLSConfig{CAPath: cfg.CAPath}},
		{"CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY: must be PEM files that belong together", &api.TLSConfig{CertFile: cfg.ClientCert, KeyFile: cfg.ClientKey}},
		{"CONSUL_TLS_SERVER_NAME: must be a host name", &api.TLSConfig{Address: cfg.TLSServerName}},
	} {
		if (part.tls.CertFile == "") != (part.tls.KeyFile == "") {
			continue // reported above
		}
		if _, err := api.SetupTLSConfig(part.tls); err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", part.name, err))
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return api.SetupTLSConfig(&api.TLSConfig{
		Address:            cfg.TLSServerName,
		CAFile:             cfg.CACert,
		CAPath:             cfg.CAPath,
		CertFile:           cfg.ClientCert,
		KeyFile:            cfg.ClientKey,
		InsecureSkipVerify: !verify,
	})
}

// readToken reads an ACL token from a file.
func readToken(file string) (string, error) {
	const most = 16 << 10 // tokens are far shorter
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("CONSUL_HTTP_TOKEN_FILE: cannot be read; it must hold the ACL token: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, most))
	token := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return "", fmt.Errorf("CONSUL_HTTP_TOKEN_FILE: cannot be read; it must hold the ACL token: %w", err)
	case token == "":
		return "", fmt.Errorf("CONSUL_HTTP_TOKEN_FILE=%q: is empty; it must hold the ACL token", file)
	case len(text) == most || !plain(token):
		return "", fmt.Errorf("CONSUL_HTTP_TOKEN_FILE=%q: must hold the ACL token and nothing else", file)
	}
	return token, nil
}

// plain reports whether all of s may stand in a header. A value that it refuses
// is not a token, and would otherwise appear in an error.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// transport limits the bodies of answers. If a token is kept in a file, it
// reads the file for each call: the API's client reads it only once, and the
// token may have been replaced by the time that the pod is deleted.
type transport struct {
	next      http.RoundTripper
	tokenFile string
	busy      pace.Busy
}

// requestLimit is the timeout of one request. Overloaded servers have been seen
// to take 4 s.
const requestLimit = 5 * time.Second

var errBusy = errors.New("the server is overloaded (HTTP status 429 or 503), and is asked again in some seconds")

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.tokenFile != "" {
		// While the file cannot be read, the token from the start is used.
		if token, err := readToken(t.tokenFile); err == nil {
			req = req.Clone(req.Context())
			req.Header.Set(tokenHeader, token)
		}
	}
	if err := t.busy.Err(); err != nil && !strings.Contains(req.URL.Path, "/deregister") {
		return nil, err // a deregistration is always sent: there may be no time for another try
	}
	limit := requestLimit
	if wait, err := time.ParseDuration(req.URL.Query().Get("wait")); err == nil {
		limit += wait + wait/16 // the server adds up to a sixteenth
	}
	ctx, cancel := context.WithTimeout(req.Context(), limit)
	resp, err := t.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	t.busy.Answered(resp.StatusCode, resp.Header, errBusy)
	if resp.StatusCode == http.StatusOK {
		resp.Body = &boundedBody{ReadCloser: resp.Body, left: longestAnswer + 1, end: cancel}
		return resp, nil
	}
	defer cancel()
	// The body goes into an error. Whoever wrote it may have echoed the
	// request.
	text, err := io.ReadAll(io.LimitReader(resp.Body, longestComplaint))
	_ = resp.Body.Close() // only read
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(strings.NewReader(withoutSecrets(string(text), req)))
	return resp, nil
}

// withoutSecrets returns text without the credentials that req carries.
func withoutSecrets(text string, req *http.Request) string {
	_, password, _ := req.BasicAuth()
	for _, secret := range []string{
		req.Header.Get(tokenHeader), password,
		strings.TrimPrefix(req.Header.Get("Authorization"), "Basic "),
	} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return text
}

// boundedBody is a response body that fails once it has returned more than its
// limit.
type boundedBody struct {
	io.ReadCloser
	left int64
	end  context.CancelFunc // cancels the context of the request's timeout
}

func (b *boundedBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the answer is longer than %d MiB", longestAnswer>>20)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
