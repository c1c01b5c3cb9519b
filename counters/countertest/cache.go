package countertest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Cache is a cache of the worst kind in front of a program's pages: its copies
// have no date and no age.
type Cache struct {
	URL string // of the program, through the cache

	mu      sync.Mutex
	address string // of the program
	storing bool
	stored  map[string]answer // by the requested URL
}

type answer struct {
	status int
	body   []byte
}

// NewCache puts a cache in front of the program at address. It forwards
// everything until Store is called.
func NewCache(t *testing.T, address string) *Cache {
	t.Helper()
	c := &Cache{address: address}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := c.answer(t, r)
		w.Header()["Date"] = nil
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body) // the client may have left
	}))
	t.Cleanup(s.Close)
	c.URL = "http://" + s.Listener.Addr().String()
	return c
}

// Store makes the cache repeat each answer that it receives from now on.
func (c *Cache) Store() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.storing, c.stored = true, make(map[string]answer)
}

// Repair makes the cache forward everything again.
func (c *Cache) Repair() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.storing = false
}

// Move makes the cache forward to another program.
func (c *Cache) Move(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.address = address
}

func (c *Cache) answer(t *testing.T, r *http.Request) answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, found := c.stored[r.URL.String()]; c.storing && found {
		return a
	}
	a := ask(t, c.address, r)
	if c.storing {
		c.stored[r.URL.String()] = a
	}
	return a
}

// ask forwards a request, and keeps no connection open.
func ask(t *testing.T, address string, r *http.Request) answer {
	u, err := url.Parse(address)
	if err != nil {
		t.Error(err)
		return answer{status: http.StatusBadGateway}
	}
	u.Path, u.RawPath, u.RawQuery = r.URL.Path, r.URL.RawPath, r.URL.RawQuery
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(&http.Request{Method: r.Method, URL: u, Header: http.Header{}})
	if err != nil {
		return answer{status: http.StatusBadGateway}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{status: http.StatusBadGateway}
	}
	return answer{resp.StatusCode, body}
}

// Secured is a program's pages behind TLS and a bearer token.
type Secured struct {
	URL       string
	CAFile    string // of the authority of its certificate
	TokenFile string // of the required token
}

// NewSecured puts TLS and a token check in front of the program at address.
func NewSecured(t *testing.T, address string) Secured {
	t.Helper()
	secret := make([]byte, 16)
	_, _ = rand.Read(secret) // it never fails
	token := hex.EncodeToString(secret)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		a := ask(t, address, r)
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body) // the client may have left
	}))
	t.Cleanup(s.Close)
	dir := t.TempDir()
	secured := Secured{URL: s.URL, CAFile: filepath.Join(dir, "ca.pem"), TokenFile: filepath.Join(dir, "token")}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for file, text := range map[string][]byte{secured.CAFile: certificate, secured.TokenFile: []byte(token + "\n")} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return secured
}
