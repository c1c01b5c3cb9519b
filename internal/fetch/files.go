package fetch

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"
)

// Limits of what is read from files.
const (
	maxToken = 64 << 10
	maxCAs   = 4 << 20
)

// connectLimit limits how long opening a connection may take, in addition to the
// call's deadline.
const connectLimit = 5 * time.Second

// tokenFile is a file with a bearer token. It is read for each call, because a
// projected service account token is replaced about every hour.
type tokenFile struct{ variable, path string }

func (f tokenFile) read() (string, error) {
	text, err := readFile(f.path, maxToken)
	if err != nil {
		return "", fmt.Errorf("%s: %w", f.variable, err)
	}
	token := strings.TrimSpace(string(text))
	switch {
	case token == "":
		return "", fmt.Errorf("%s: %s is empty; it must hold a bearer token", f.variable, f.path)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("%s: %s must hold one bearer token alone, in ASCII and without white space in it", f.variable, f.path)
	}
	return token, nil
}

// caFile is a file of certificate authorities. It is read for each connection, so
// that a replaced file is used without a restart.
type caFile struct{ variable, path string }

func (f caFile) read() (*x509.CertPool, error) {
	text, err := readFile(f.path, maxCAs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.variable, err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // the image may have no system roots
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: %s holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", f.variable, f.path)
	}
	return roots, nil
}

// dial opens a TLS connection.
func (f caFile) dial(ctx context.Context, network, address string) (net.Conn, error) {
	roots, err := f.read()
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: connectLimit},
		Config:    &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}
	return d.DialContext(ctx, network, address)
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	var text bytes.Buffer
	n, err := io.Copy(&text, io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, err
	case n > limit:
		return nil, fmt.Errorf("%s is longer than %s", path, size(limit))
	}
	return text.Bytes(), nil
}

// dialSocket returns a function that connects to a unix socket and ignores the
// address.
func dialSocket(socket string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: connectLimit}
		conn, err := d.DialContext(ctx, "unix", socket)
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("%w: give the socket a mode or a group that lets this container's user in", err)
		}
		return conn, err
	}
}

// ReadToken reads a file with one bearer token. Its errors begin with name, the
// name of the user's setting, and never contain the token.
func ReadToken(name, path string) (string, error) { return tokenFile{name, path}.read() }

// ReadCAs reads a PEM file of certificate authorities. They are trusted in addition
// to the system's. Its errors begin with name.
func ReadCAs(name, path string) (*x509.CertPool, error) { return caFile{name, path}.read() }
