package webhook_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lastcall/admission/webhook"
)

// A changed certificate is served from then on. While files are being replaced, or if
// they are broken, the previous certificate is served.
func TestCertificateChanges(t *testing.T) {
	_, certFile, keyFile := writeCertificate(t)
	c, err := webhook.NewCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	serves := func() []byte {
		t.Helper()
		pair, err := c.Get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Certificate[0]
	}
	first := serves()
	_, nextCert, nextKey := writeCertificate(t)

	replace(t, certFile, nextCert, time.Second) // the key file is not replaced yet
	if !bytes.Equal(serves(), first) {
		t.Error("a certificate without its key is served")
	}
	replace(t, keyFile, nextKey, time.Second)
	second := serves()
	if bytes.Equal(second, first) {
		t.Error("the new certificate is not served")
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(serves(), second) {
		t.Error("a missing file ends the service")
	}
	if _, err := webhook.NewCertificate(certFile, keyFile); err == nil {
		t.Error("it starts without a certificate")
	}
}

// replace copies the content of other to file, and moves file's modification time
// forward by later.
func replace(t *testing.T, file, other string, later time.Duration) {
	t.Helper()
	text, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(later)
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

// writeCertificate writes a self-signed certificate for 127.0.0.1.
func writeCertificate(t *testing.T) (caFile, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "lastcall-admission"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	certFile = write("tls.crt", "CERTIFICATE", der)
	return certFile, certFile, write("tls.key", "EC PRIVATE KEY", keyDER)
}
