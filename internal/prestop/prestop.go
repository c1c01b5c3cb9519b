// Package prestop calls a sidecar's /prestop, as an exec hook in the app's
// container does, and retries while there is no answer.
package prestop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// answerSlack is how much longer than Limit an open call may take: the
	// sidecar's budget began when the call arrived there, and its answer takes
	// time.
	answerSlack = time.Second
	// dialLimit is how long opening a connection within one machine may take.
	dialLimit = time.Second
	// The pauses between calls. A restarted sidecar first starts serving, and
	// should get the call as soon as it listens.
	firstPause = 25 * time.Millisecond
	mostPause  = 250 * time.Millisecond
	// reportBytes limits how much of an answer is read. The sidecar limits its
	// report to 10 KiB.
	reportBytes = 64 << 10
)

// A Call is a call of /prestop.
type Call struct {
	Address string        // HOST:PORT of the sidecar
	Token   string        // LASTCALL_TOKEN; empty: none is sent
	Agent   string        // the User-Agent
	Limit   time.Duration // how long to retry while there is no answer
	// Log receives one line for each message to people. It is never called by two
	// goroutines at once.
	Log func(line string)
}

// Errors of Do.
var (
	// ErrNotDrained means that the sidecar answered, and the drain ended with an
	// outcome other than drained.
	ErrNotDrained = errors.New("not drained")
	// ErrRefused means that there was an answer that will not change: the token is
	// wrong, or the program that listens there is not Lastcall.
	ErrRefused = errors.New("refused")
	// ErrNoAnswer means that Limit passed without an answer.
	ErrNoAnswer = errors.New("no answer")
)

// errAgain means that the call should be repeated.
var errAgain = errors.New("call again")

// Do calls /prestop and returns nil when the pod is drained. It blocks for as long
// as the drain takes. If the connection is refused or breaks, or the answer is not
// the end of a drain, Do calls again, with pauses that grow to a quarter of a
// second: a drain continues without its callers, and a restarted sidecar begins
// another. It returns ErrNotDrained, ErrRefused or ErrNoAnswer, wrapped, at most a
// second after Limit, or ctx's error.
func (c *Call) Do(ctx context.Context) error {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, c.Limit+answerSlack)
	defer cancel()
	client := &http.Client{
		Transport: &http.Transport{
			DialContext:       (&net.Dialer{Timeout: dialLimit}).DialContext,
			DisableKeepAlives: true, // this also disables the client's own retry
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	last := ""
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		called := time.Now()
		err := c.once(limited, client)
		switch {
		case err == nil || errors.Is(err, ErrNotDrained) || errors.Is(err, ErrRefused):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Since(began)+pause >= c.Limit:
			return fmt.Errorf("%w from the sidecar at %s within %v: %w", ErrNoAnswer, c.Address, c.Limit, err)
		}
		if time.Since(called) >= mostPause {
			pause = firstPause // the sidecar was reachable in the meantime
		}
		if text := err.Error(); text != last {
			last = text
			left := max(0, c.Limit-time.Since(began)).Round(100 * time.Millisecond)
			c.Log(fmt.Sprintf("%s; calling again for %v at most", text, left))
		}
		timer := time.NewTimer(pause)
		select {
		case <-limited.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// once makes one call.
func (c *Call) once(ctx context.Context, client *http.Client) error {
	url := "http://" + c.Address + "/prestop"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("%w: calling %s: %w", ErrRefused, url, err)
	}
	req.Header.Set("User-Agent", c.Agent)
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("calling the sidecar: %w", err) // the error contains the URL
	}
	defer resp.Body.Close()
	body, readErr := io.ReadAll(io.LimitReader(resp.Body, reportBytes))
	var report struct {
		Outcome    string `json:"outcome"`
		WaitingFor string `json:"waiting_for"`
		Reason     string `json:"reason"`
		Error      string `json:"error"`
	}
	isJSON := json.Unmarshal(body, &report) == nil
	switch code := resp.StatusCode; {
	case readErr != nil:
		return fmt.Errorf("%w: the answer of %s broke off: %w", errAgain, url, readErr)
	case isJSON && report.Outcome != "" && code == http.StatusOK:
		return nil
	case isJSON && report.Outcome != "":
		return notDrained(report.Outcome, report.Reason, report.WaitingFor)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return fmt.Errorf("%w: %s answered %d: set LASTCALL_TOKEN in the app's container, or -token-file, to the value that the sidecar has", ErrRefused, url, code)
	case code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500:
		return fmt.Errorf("%w: %s answered %d %s", errAgain, url, code, report.Error)
	default:
		return fmt.Errorf("%w: %s answered %d and no report: is it the port of Lastcall's sidecar?", ErrRefused, url, code)
	}
}

// notDrained is the error for the report of a drain that ended with another
// outcome.
func notDrained(outcome, reason, waitingFor string) error {
	texts := []string{outcome}
	for _, text := range []string{reason, waitingFor} {
		if text != "" {
			texts = append(texts, text)
		}
	}
	return fmt.Errorf("%w: %s", ErrNotDrained, strings.Join(texts, ", "))
}
