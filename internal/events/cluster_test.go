package events

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// otherRoot is the PEM certificate of an authority that has signed nothing.
func otherRoot(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
}

func TestMistakes(t *testing.T) {
	root := otherRoot(t)
	for name, test := range map[string]struct {
		host, port, token, roots string // empty: the file is missing
		says                     []string
	}{
		"not in a cluster": {"", "", "", "", []string{
			"KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set", "LASTCALL_EVENTS=false",
			"token: no such file", "automountServiceAccountToken: true",
		}},
		"no roots":                {"10.96.0.1", "443", tokenOf(claims), "", []string{"ca.crt: no such file", "automountServiceAccountToken: true"}},
		"roots that are none":     {"10.96.0.1", "443", tokenOf(claims), "certainly", []string{"ca.crt holds no certificate"}},
		"a token that is none":    {"10.96.0.1", "443", "hunter2", root, []string{"its token is not a JSON web token"}},
		"a token of garbage":      {"10.96.0.1", "443", "hunter2.%.x", root, []string{"its token is not a JSON web token"}},
		"a token of no JSON":      {"10.96.0.1", "443", tokenOf("hunter2"), root, []string{"its token is not a JSON web token"}},
		"a token of no pod":       {"10.96.0.1", "443", tokenOf(`{"kubernetes.io": {"namespace": "hunter2"}}`), root, []string{"names no pod"}},
		"a token that never ends": {"10.96.0.1", "443", strings.Repeat("hunter2", fileLimit/7+1), root, []string{"token is longer than"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Host: test.host, Port: test.port, Dir: t.TempDir()}
			for file, text := range map[string]string{"token": test.token, "ca.crt": test.roots} {
				if text != "" {
					mount(t, cfg.Dir, file, text)
				}
			}
			_, err := New(cfg)
			if err == nil {
				t.Fatal("no mistake was found")
			}
			for _, says := range append(test.says, "LASTCALL_EVENTS=true") {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("it does not say %q: %v", says, err)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("it repeats the token: %v", err)
			}
		})
	}
}

func TestTheServersAddress(t *testing.T) {
	for host, want := range map[string]string{"10.96.0.1": "https://10.96.0.1:443", "fd00::1": "https://[fd00::1]:443"} {
		cfg := Config{Host: host, Port: "443", Dir: t.TempDir()}
		mount(t, cfg.Dir, "token", tokenOf(claims)+"\n")
		mount(t, cfg.Dir, "ca.crt", otherRoot(t))
		w, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if w.cluster.server != want || w.cluster.pod != (pod{"shop", "web-0", "7d3f"}) {
			t.Errorf("%+v", w.cluster)
		}
	}
}

func TestInCluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if got := InCluster(); got != (Config{"10.96.0.1", "443", "/var/run/secrets/kubernetes.io/serviceaccount"}) {
		t.Errorf("%+v", got)
	}
}

// Whatever a mounted file holds, the result is an error or a pod. It never panics,
// and an error never contains the token.
func FuzzToken(f *testing.F) {
	f.Add(claims)
	f.Add(`{"kubernetes.io": null}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, claims string) {
		for _, token := range []string{claims, tokenOf(claims)} {
			p, err := podOf(token)
			if (err == nil) != (p.Namespace != "" && p.Name != "" && p.UID != "") {
				t.Errorf("%+v, %v", p, err)
			}
		}
	})
}

func TestReadIsBounded(t *testing.T) {
	if _, err := read(filepath.Join(os.DevNull, "x")); err == nil {
		t.Error("a file under a device was read")
	}
	if _, err := read("/dev/zero"); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("/dev/zero: %v", err)
	}
}
