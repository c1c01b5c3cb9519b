package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"
)

type certificates struct{ pair *tls.Certificate }

func (c certificates) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.pair == nil {
		return nil, errors.New("none yet")
	}
	return c.pair, nil
}

func TestMetrics(t *testing.T) {
	ends := &tls.Certificate{Leaf: &x509.Certificate{NotAfter: time.Unix(2_000_000_000, 0)}}
	for name, c := range map[string]struct {
		ready        error
		certificates certificates
		want, not    string
	}{
		"ready":          {nil, certificates{ends}, "\nlastcall_admission_ready 1\n", "lastcall_admission_ready 0"},
		"the end":        {nil, certificates{ends}, "\nlastcall_admission_certificate_expiry_timestamp_seconds 2000000000\n", ""},
		"not ready":      {errors.New("no"), certificates{ends}, "\nlastcall_admission_ready 0\n", ""},
		"no certificate": {errors.New("no"), certificates{}, "\nlastcall_admission_ready 0\n", "\nlastcall_admission_certificate_expiry_timestamp_seconds "},
		"the version":    {nil, certificates{ends}, "lastcall_admission_build_info{version=\"dev\",goversion=\"go1.", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var page strings.Builder
			writeMetrics(&page, c.ready, c.certificates)
			if !strings.Contains(page.String(), c.want) || c.not != "" && strings.Contains(page.String(), c.not) {
				t.Errorf("want %q and not %q in\n%s", c.want, c.not, &page)
			}
		})
	}
}
