package certs_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"testing"
	"time"

	"lastcall/admission/certs"
)

const (
	day     = 24 * time.Hour
	service = "lastcall-admission.lastcall-system.svc"
)

var start = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// plan calls Plan with the default lifetimes.
func plan(t *testing.T, data map[string][]byte, at time.Time, trusted bool) (map[string][]byte, bool) {
	t.Helper()
	out, changed, err := certs.Plan(data, []string{service, "127.0.0.1"}, certs.Defaults(), at, func([]byte) bool { return trusted })
	if err != nil {
		t.Fatal(err)
	}
	verify(t, out, at)
	return out, changed
}

// verify checks the leaf as an API server that trusts the current authority does.
func verify(t *testing.T, data map[string][]byte, at time.Time) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(data["ca.crt"])
	for _, name := range []string{service, "127.0.0.1"} {
		if _, err := read(t, data["tls.crt"]).Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: at}); err != nil {
			t.Fatalf("%s at %s: %v", name, at, err)
		}
	}
}

func read(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// An empty Secret is filled, and then changed only when a renewal is due.
func TestPlanYears(t *testing.T) {
	data, changed := plan(t, nil, start, false)
	if !changed {
		t.Fatal("nothing is made")
	}
	var authorities, leaves int
	for at := start; at.Before(start.Add(3 * 365 * day)); at = at.Add(day) {
		before := data
		data, changed = plan(t, data, at, true)
		if changed == maps.EqualFunc(before, data, bytes.Equal) {
			t.Fatalf("%s: changed %v", at, changed)
		}
		if !bytes.Equal(before["tls.crt"], data["tls.crt"]) {
			leaves++
		}
		if !bytes.Equal(before["ca.crt"], data["ca.crt"]) {
			authorities++
			if !bytes.Equal(before["next-ca.crt"], data["ca.crt"]) {
				t.Errorf("%s: an authority of which no caBundle knew", at)
			}
		}
		if old := read(t, before["ca.crt"]); !bytes.Equal(before["ca.crt"], data["ca.crt"]) && at.Before(old.NotAfter) && !bytes.Contains(data["old-ca.crt"], before["ca.crt"]) {
			t.Errorf("%s: the old authority is gone already", at)
		}
		if left := read(t, data["tls.crt"]).NotAfter.Sub(at); left < 9*day {
			t.Errorf("%s: the certificate has %s left", at, left)
		}
	}
	if authorities < 3 || authorities > 4 || leaves < 50 || leaves > 70 {
		t.Errorf("%d authorities, %d leaves", authorities, leaves)
	}
}

// The next authority signs nothing before all caBundles hold it.
func TestPlanWaitsForTrust(t *testing.T) {
	data, _ := plan(t, nil, start, false)
	first := data["ca.crt"]
	for at := start; at.Before(start.Add(364 * day)); at = at.Add(day) {
		if data, _ = plan(t, data, at, false); !bytes.Equal(data["ca.crt"], first) {
			t.Fatalf("%s: promoted", at)
		}
	}
	if data, _ = plan(t, data, start.Add(364*day), true); bytes.Equal(data["ca.crt"], first) {
		t.Error("not promoted")
	}
}

// Broken entries are replaced, and nothing else.
func TestPlanRepairs(t *testing.T) {
	whole, _ := plan(t, nil, start, false)
	for name, c := range map[string]struct {
		change func(data map[string][]byte)
		sameCA bool
	}{
		"no leaf":        {func(d map[string][]byte) { delete(d, "tls.crt") }, true},
		"no leaf key":    {func(d map[string][]byte) { d["tls.key"] = []byte("x") }, true},
		"another's leaf": {func(d map[string][]byte) { d["tls.crt"], d["tls.key"] = d["ca.crt"], d["ca.key"] }, true},
		"no CA key":      {func(d map[string][]byte) { delete(d, "ca.key") }, false},
		"unreadable CA":  {func(d map[string][]byte) { d["ca.crt"] = []byte("x") }, false},
	} {
		data := maps.Clone(whole)
		c.change(data)
		out, changed := plan(t, data, start.Add(time.Hour), false)
		if !changed || bytes.Equal(out["ca.crt"], whole["ca.crt"]) != c.sameCA {
			t.Errorf("%s: changed %v", name, changed)
		}
	}
	if out, _ := plan(t, whole, start.Add(400*day), false); bytes.Equal(out["ca.crt"], whole["ca.crt"]) {
		t.Error("an expired authority stays")
	}
	other, changed, err := certs.Plan(whole, []string{"other.svc"}, certs.Defaults(), start, func([]byte) bool { return true })
	if err != nil || !changed || read(t, other["tls.crt"]).VerifyHostname("other.svc") != nil {
		t.Errorf("another name: changed %v, %v", changed, err)
	}
}
