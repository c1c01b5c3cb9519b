package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// pair is a certificate and its key, as PEM.
type pair struct{ cert, key []byte }

// earlier returns how long before its creation a certificate becomes valid, to allow
// for clocks that differ.
func earlier(life time.Duration) time.Duration { return min(5*time.Minute, life/10) }

func makeCA(now time.Time, life time.Duration) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("making the authority's key: %w", err)
	}
	template, err := template(now, life)
	if err != nil {
		return pair{}, err
	}
	// Each authority has a different name, so that verification finds the right issuer.
	template.Subject = pkix.Name{CommonName: fmt.Sprintf("lastcall-admission-ca-%x", template.SerialNumber.Bytes()[:4])}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign
	return sign(template, template, key, key)
}

func makeLeaf(ca pair, names []string, now time.Time, life time.Duration) (pair, error) {
	issuer, err := parse(ca.cert)
	if err != nil {
		return pair{}, fmt.Errorf("reading the authority: %w", err)
	}
	issuerKey, err := parseKey(ca.key)
	if err != nil {
		return pair{}, fmt.Errorf("reading the authority's key: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("making the certificate's key: %w", err)
	}
	template, err := template(now, min(life, issuer.NotAfter.Sub(now)))
	if err != nil {
		return pair{}, err
	}
	template.Subject = pkix.Name{CommonName: names[0]}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return sign(template, issuer, key, issuerKey)
}

func template(now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	serial.SetBit(serial, 120, 1) // all serial numbers have the same length
	return &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-earlier(life)), NotAfter: now.Add(life)}, nil
}

func sign(template, issuer *x509.Certificate, key, issuerKey *ecdsa.PrivateKey) (pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, issuerKey)
	if err != nil {
		return pair{}, fmt.Errorf("signing a certificate: %w", err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return pair{}, fmt.Errorf("writing a key: %w", err)
	}
	return pair{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

var errNoPEM = errors.New("it is not in PEM form")

func parse(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errNoPEM
	}
	return x509.ParseCertificate(block.Bytes)
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errNoPEM
	}
	return x509.ParseECPrivateKey(block.Bytes)
}

// split returns the certificates of a bundle, each as PEM.
func split(bundle []byte) (all [][]byte) {
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return all
		}
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
	}
}
