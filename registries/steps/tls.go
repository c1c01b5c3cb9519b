package steps

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"lastcall/internal/fetch"
)

// openTLS holds the paths of the TLS files. They are read for each connection,
// so replaced files are used without a restart.
type openTLS struct {
	ca, cert, key, serverName string
	insecure                  bool
}

// open resolves the paths and reads the files once, to find mistakes at start.
func (t *tlsFiles) open(values values) (*openTLS, error) {
	o := &openTLS{insecure: t.insecure}
	var mistakes []error
	for _, file := range []struct {
		from text
		to   *string
	}{{t.ca, &o.ca}, {t.cert, &o.cert}, {t.key, &o.key}, {t.serverName, &o.serverName}} {
		var err error
		*file.to, err = file.from.expand(values, nil)
		mistakes = append(mistakes, err)
	}
	if (o.cert == "") != (o.key == "") {
		mistakes = append(mistakes, errors.New("tls.cert and tls.key: one of them is empty; set both, or none"))
	} else {
		_, err := o.config()
		mistakes = append(mistakes, err)
	}
	return o, errors.Join(mistakes...)
}

func (o *openTLS) config() (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         o.serverName,
		InsecureSkipVerify: o.insecure, //nolint:gosec // the file asks for it
	}
	var err error
	if o.ca != "" {
		if c.RootCAs, err = fetch.ReadCAs("tls.ca", o.ca); err != nil {
			return nil, err
		}
	}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, fmt.Errorf("tls.cert and tls.key must be PEM files that belong together: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// dial establishes a TLS connection.
func (o *openTLS) dial(ctx context.Context, network, address string) (net.Conn, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: connectLimit}, Config: config}
	return d.DialContext(ctx, network, address)
}
