package events

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"lastcall/internal/cliptext"
)

// answerLimit is how much of an answer the client reads, in bytes.
const answerLimit = 64 << 10

// dial opens a connection, as net.Dialer does.
type dial func(ctx context.Context, network, address string) (net.Conn, error)

// client calls the API server.
type client struct {
	cluster cluster
	dial    dial
	http    *http.Client // nil until the first call
}

func newClient(c cluster, d dial) *client {
	if d == nil {
		// Dialing continues after the call that started it has ended.
		d = (&net.Dialer{Timeout: callLimit}).DialContext
	}
	return &client{cluster: c, dial: d}
}

// connect creates the client's transport. It connects directly to the API server,
// ignores proxies named by the environment, and follows no redirects: nobody else
// may get the token.
func (c *client) connect() error {
	if c.http != nil {
		return nil
	}
	roots, err := readRoots(c.cluster.rootsFile)
	if err != nil {
		return fmt.Errorf("the API server cannot be verified: %w", err)
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:            c.dial,
			TLSHandshakeTimeout:    callLimit, // continues after the call that started it has ended
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			MaxIdleConnsPerHost:    1,
			MaxConnsPerHost:        4, // calls are made one at a time; abandoned calls may still be ending
			IdleConnTimeout:        callLimit,
			DisableCompression:     true,
			MaxResponseHeaderBytes: answerLimit,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

func (c *client) close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// create writes one event. The error is a *refusedError if the API server answered.
func (c *client) create(ctx context.Context, e *event) error {
	if err := c.connect(); err != nil {
		return err
	}
	token, err := readToken(c.cluster.tokenFile)
	if err != nil {
		return err
	}
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("making an event: %w", err)
	}
	address := c.cluster.server + "/api/v1/namespaces/" + url.PathEscape(c.cluster.pod.Namespace) + "/events"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("making an event: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "lastcall")
	resp, err := c.http.Do(req)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("calling the API server, which a NetworkPolicy may keep the pod from: %w", err)
	case err != nil:
		return fmt.Errorf("calling the API server: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	switch {
	case resp.StatusCode/100 == 2, resp.StatusCode == http.StatusConflict: // an earlier attempt succeeded
		return nil
	case err != nil:
		return fmt.Errorf("reading the API server's answer: %w", err)
	}
	return refusal(resp, answer)
}

// refusedError is an API server's answer that is neither 2xx nor 409 Conflict.
type refusedError struct {
	code       int
	message    string        // from the API server
	retryAfter time.Duration // from the Retry-After header; 0 if it is not set
}

func refusal(resp *http.Response, answer []byte) *refusedError {
	e := &refusedError{code: resp.StatusCode}
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer, &status) == nil {
		e.message = cliptext.Clip(status.Message, noteLimit)
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.retryAfter = time.Duration(min(seconds, 3600)) * time.Second
	}
	return e
}

// final reports whether the same call would fail again in the same way.
func (e *refusedError) final() bool {
	switch e.code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false // the kubelet renews the token; overload passes
	}
	return e.code < 500
}

func (e *refusedError) Error() string {
	text := fmt.Sprintf("the API server answered %d %s", e.code, http.StatusText(e.code))
	if e.message != "" {
		text += ": " + e.message
	}
	if e.code == http.StatusForbidden {
		text += ": the pod's service account needs a Role with the verb create on events (docs/events.md)"
	}
	return text
}
