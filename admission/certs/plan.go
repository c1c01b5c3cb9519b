package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"time"
)

// Plan returns the data that the Secret should hold, given its current data, and
// whether the two differ. trusted reports whether API servers trust an
// authority. Plan replaces missing or unreadable entries; the Secret may be empty.
func Plan(data map[string][]byte, names []string, life Lifetimes, now time.Time, trusted func(ca []byte) bool) (map[string][]byte, bool, error) {
	out := maps.Clone(data)
	if out == nil {
		out = map[string][]byte{}
	}
	current, err := usable(pair{out[keyCA], out[keyCAKey]}, now)
	next, nextErr := usable(pair{out[keyNext], out[keyNextKey]}, now)
	switch {
	case err != nil && nextErr == nil: // the current one is expired or unreadable: the next one cannot be worse
		promote(out)
	case err != nil:
		made, err := makeCA(now, life.CA)
		if err != nil {
			return nil, false, err
		}
		out[keyCA], out[keyCAKey] = made.cert, made.key
	case nextErr != nil && late(current, now, 3):
		made, err := makeCA(now, life.CA)
		if err != nil {
			return nil, false, err
		}
		out[keyNext], out[keyNextKey] = made.cert, made.key
	case nextErr == nil && late(current, now, 6) && next != nil && trusted(out[keyNext]):
		promote(out)
	}
	out[keyOld] = unexpired(out[keyOld], now)
	if !serves(out, names, now) {
		leaf, err := makeLeaf(pair{out[keyCA], out[keyCAKey]}, names, now, life.Leaf)
		if err != nil {
			return nil, false, err
		}
		out[keyLeaf], out[keyLeafKey] = leaf.cert, leaf.key
	}
	return out, !maps.EqualFunc(clean(data), clean(out), bytes.Equal), nil
}

// clean returns a copy of data without the keys that have an empty value.
func clean(data map[string][]byte) map[string][]byte {
	data = maps.Clone(data)
	maps.DeleteFunc(data, func(_ string, value []byte) bool { return len(value) == 0 })
	return data
}

// promote makes the next authority the current one, and the current one old.
func promote(out map[string][]byte) {
	out[keyOld] = append(bytes.Clone(out[keyCA]), out[keyOld]...)
	out[keyCA], out[keyCAKey] = out[keyNext], out[keyNextKey]
	out[keyNext], out[keyNextKey] = nil, nil
}

// usable parses an authority. It returns an error if the authority cannot sign now.
func usable(ca pair, now time.Time) (*x509.Certificate, error) {
	if _, err := tls.X509KeyPair(ca.cert, ca.key); err != nil {
		return nil, err
	}
	cert, err := parse(ca.cert)
	if err != nil {
		return nil, err
	}
	if !cert.IsCA || !now.Before(cert.NotAfter) {
		return nil, fmt.Errorf("it expired at %s", cert.NotAfter)
	}
	_, err = parseKey(ca.key)
	return cert, err
}

// late reports whether less than an nth of a certificate's life is left.
func late(cert *x509.Certificate, now time.Time, nth int) bool {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return !now.Before(cert.NotAfter.Add(-life / time.Duration(nth)))
}

// serves reports whether the current authority has signed the leaf, the leaf is
// valid for all names, and more than a third of its life is left.
func serves(data map[string][]byte, names []string, now time.Time) bool {
	if _, err := tls.X509KeyPair(data[keyLeaf], data[keyLeafKey]); err != nil {
		return false
	}
	leaf, err := parse(data[keyLeaf])
	if err != nil || late(leaf, now, 3) {
		return false
	}
	ca, err := parse(data[keyCA])
	if err != nil || leaf.CheckSignatureFrom(ca) != nil {
		return false
	}
	for _, name := range names {
		if leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	return true
}

func unexpired(bundle []byte, now time.Time) (kept []byte) {
	for _, text := range split(bundle) {
		if cert, err := parse(text); err == nil && now.Before(cert.NotAfter) {
			kept = append(kept, text...)
		}
	}
	return kept
}

// bundle returns the content for the caBundles.
func bundle(data map[string][]byte) []byte {
	return bytes.Join([][]byte{data[keyCA], data[keyNext], data[keyOld]}, nil)
}

// holds reports whether a bundle holds the certificate.
func holds(bundle, ca []byte) bool {
	for _, text := range split(bundle) {
		if bytes.Equal(bytes.TrimSpace(text), bytes.TrimSpace(ca)) {
			return true
		}
	}
	return false
}
