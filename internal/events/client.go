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

// answerLimit is how much of an answer is read, in bytes.
const answerLimit = 64 << 10

// dial opens a connection, as net.Dialer does.
type dial func(ctx context.Context, network, address string) (net.Conn, error)

// client calls the API server.
type client struct {
	cluster cluster
	dial    dial
	http    *http.Client // nil until it is needed
}

func newClient(c cluster, d dial) *client {
	if d == nil {
		// Dialing goes on when the call has ended that began it.
		d = (&net.Dialer{Timeout: callLimit}).DialContext
	}
	return &client{cluster: c, dial: d}
}

// connect makes the client's transport. It goes to the API server directly,
// whatever proxy the environment names, and no redirect is followed: the token
// is for nobody else.
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
			TLSHandshakeTimeout:    callLimit, // goes on when the call has ended
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			MaxIdleConnsPerHost:    1,
			MaxConnsPerHost:        4, // calls are made one by one; those given up may still be ending
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

// create writes one event. The error is a *refusedError when the API server
// has answered.
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
	defer func() { _ = resp.Body.Close() }() // read as far as it matters
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	switch {
	case resp.StatusCode/100 == 2, resp.StatusCode == http.StatusConflict: // an earlier try got through
		return nil
	case err != nil:
		return fmt.Errorf("reading the API server's answer: %w", err)
	}
	return refusal(resp, answer)
}

// refusedError is an answer of the API server other than 201 Created.
type refusedError struct {
	code       int
	message    string        // its own words
	retryAfter time.Duration // as it asks for; 0: it does not
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

// final reports whether the same call would be answered so again.
func (e *refusedError) final() bool {
	switch e.code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false // the kubelet renews the token; load goes by
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
