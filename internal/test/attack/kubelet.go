package attack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"lastcall/internal/test/wait"
)

// KubeletAddress returns the address that the kubelet calls from. The crowd does
// not use it.
func KubeletAddress() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 9}) }

// Kubelet calls as the kubelet does: each call has its own connection.
type Kubelet struct {
	url    string
	client *http.Client
}

// NewKubelet returns the kubelet of a sidecar at url.
func NewKubelet(url string) *Kubelet {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: KubeletAddress().AsSlice()}}
	return &Kubelet{url, &http.Client{
		Timeout:   wait.Patience,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext},
	}}
}

// Call makes a call whose answer must have the status code. It returns the body and
// how long the call took.
func (k *Kubelet) Call(ctx context.Context, path string, code int) (body string, took time.Duration, err error) {
	agent := "kube-probe/1.34"
	if path == "/prestop" {
		agent = "kube-lifecycle/1.34"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url+path, http.NoBody)
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("User-Agent", agent)
	began := time.Now()
	resp, err := k.client.Do(req)
	if err != nil {
		return "", 0, fmt.Errorf("the kubelet's %s after %v: %w", path, time.Since(began), err)
	}
	text, err := io.ReadAll(resp.Body)
	took = time.Since(began)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return "", 0, fmt.Errorf("the kubelet's %s after %v: %w", path, took, err)
	}
	if resp.StatusCode != code {
		return "", 0, fmt.Errorf("the kubelet's %s was answered %d %s, want %d", path, resp.StatusCode, text, code)
	}
	return string(text), took, nil
}
