package webhook

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// Certificate is a certificate in files. It reads them again when they have changed.
// It is safe for concurrent use.
type Certificate struct {
	certFile, keyFile string

	mu      sync.Mutex // guards everything that follows
	loaded  *tls.Certificate
	changed [2]time.Time
}

// NewCertificate returns a Certificate. It returns an error if the files cannot be
// read.
func NewCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	if _, err := c.Get(nil); err != nil {
		return nil, err
	}
	return c, nil
}

// Get returns the current certificate. It is meant for tls.Config.GetCertificate. If
// the files are invalid, for example because only one has been replaced yet, Get
// returns the previous certificate.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed, err := c.times()
	if err == nil && c.loaded != nil && changed == c.changed {
		return c.loaded, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(c.certFile, c.keyFile)
	}
	if err != nil && c.loaded == nil {
		return nil, fmt.Errorf("reading the certificate from %s and %s: %w", c.certFile, c.keyFile, err)
	}
	if err == nil {
		c.loaded, c.changed = &pair, changed
	}
	return c.loaded, nil
}

func (c *Certificate) times() (changed [2]time.Time, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return changed, err
		}
		changed[i] = info.ModTime()
	}
	return changed, nil
}
