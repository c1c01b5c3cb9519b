package nacos

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"unicode"
)

// host is an instance as answers show it.
type host struct {
	IP        string            `json:"ip"`
	Port      int               `json:"port"`
	Cluster   string            `json:"clusterName"`
	Weight    float64           `json:"weight"`
	Enabled   *bool             `json:"enabled"`   // nil: not given
	Ephemeral *bool             `json:"ephemeral"` // nil: not given
	Healthy   *bool             `json:"healthy"`   // nil: not given
	Metadata  map[string]string `json:"metadata"`
}

// isAt reports whether the instance has this address and port.
func (h *host) isAt(ip netip.Addr, port int) bool {
	got, err := netip.ParseAddr(strings.Trim(h.IP, "[]"))
	return err == nil && got.Unmap().WithZone("") == ip && h.Port == port
}

// available reports whether clients use the instance.
func (h *host) available() bool { return h.Enabled == nil || *h.Enabled }

// valid reports whether this instance alone makes a list count as not empty for
// clients that protect themselves from empty lists (ServiceInfo.validate in
// Nacos' client).
func (h *host) valid() bool {
	return h.available() && (h.Healthy == nil || *h.Healthy) && h.Weight > 0
}

// result is the format of answers since v2 of the API.
type result struct {
	Code    *int            `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data"`
}

// Codes of v2 and v3 that mean that something does not exist (ErrorCode in
// Nacos' module api): a resource, an instance, a service. instanceError is the
// answer to a change of an instance of an unknown service.
const (
	resourceNotFound = 20004
	instanceNotFound = 21003
	instanceError    = 21004
	serviceNotFound  = 21008
)

// result parses the answer as one of the API since v2. ok is false for the
// answer of another server to a path that it does not have.
func (a answer) result() (result, bool) {
	var r result
	err := json.Unmarshal(a.body, &r)
	return r, err == nil && r.Code != nil
}

// ofAPI reports whether the answer has the format used since v2.
func (a answer) ofAPI() bool {
	_, ok := a.result()
	return ok
}

// absent reports whether the server does not have the call (not the instance).
// Gateways without a route answer in many forms.
func (a answer) absent() bool {
	switch a.code {
	case http.StatusGone, http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return true
	case http.StatusNotFound:
		r, ofAPI := a.result()
		return !ofAPI || !isNotFound(*r.Code)
	}
	return false
}

// notFound reports whether the answer means that the instance or its service
// does not exist. Servers of v1 express this as text, and with several
// statuses; rnacos only answers "error".
func (a answer) notFound(v version) bool {
	if v == v1 {
		text := strings.ToLower(string(a.body[:min(len(a.body), 1<<10)]))
		switch {
		case a.code == http.StatusNotFound:
			return true
		case a.code != http.StatusInternalServerError && a.code != http.StatusBadRequest:
			return false
		case strings.TrimSpace(text) == "error":
			return true
		}
		for _, words := range []string{"no ips found", "no matched ip found", "not found", "no service ", "no dom "} {
			if strings.Contains(text, words) {
				return true
			}
		}
		return false
	}
	r, ok := a.result()
	return ok && isNotFound(*r.Code)
}

func isNotFound(code int) bool {
	switch code {
	case resourceNotFound, instanceNotFound, instanceError, serviceNotFound:
		return true
	}
	return false
}

// data returns the payload of a successful answer.
func (a answer) data(v version) (json.RawMessage, bool) {
	if a.code != http.StatusOK {
		return nil, false
	}
	if v == v1 {
		return a.body, true
	}
	// The PATCH of v2 answers as the PATCH of v1 does.
	if string(bytes.TrimSpace(a.body)) == "ok" {
		return nil, true
	}
	r, ok := a.result()
	return r.Data, ok && *r.Code == 0
}

// maxExcerpt limits what an error shows of an answer.
const maxExcerpt = 200

// refusal returns the error for an answer that is not a success. It begins with
// what to do: reports show only the first words.
func (s *server) refusal(r request, a answer) error {
	var do string
	switch {
	case a.code == http.StatusOK:
		do = "unexpected answer"
	case a.code/100 == 3:
		do = "redirects are not followed: set the address that it redirects to in LASTCALL_NACOS_URLS"
		if to, err := url.Parse(a.header.Get("Location")); err == nil && to.Host != "" {
			do = "redirects to " + to.Scheme + "://" + to.Host + ", which is not followed: set LASTCALL_NACOS_URLS to the server itself"
		}
	case (a.code == http.StatusUnauthorized || a.code == http.StatusForbidden) && s.user == "":
		do = "set LASTCALL_NACOS_USERNAME and LASTCALL_NACOS_PASSWORD"
	case a.code == http.StatusUnauthorized || a.code == http.StatusForbidden:
		do = "the user in LASTCALL_NACOS_USERNAME needs the right to read and write the namespace"
	case a.code == http.StatusTooManyRequests:
		do = "the server is overloaded, and gets fewer requests"
	case a.code >= 500:
		do = "the server failed: see its log"
	default:
		do = "unexpected answer"
	}
	text := fmt.Sprintf("%s (%v: status %d)", do, r, a.code)
	if excerpt := s.excerpt(a.body); excerpt != "" {
		text += ": " + excerpt
	}
	return errors.New(text)
}

// excerpt returns the beginning of an answer for messages, without secrets.
func (s *server) excerpt(body []byte) string {
	text := strings.ToValidUTF8(string(body[:min(len(body), 4*maxExcerpt)]), "?")
	s.mu.Lock()
	secrets := []string{s.password, url.QueryEscape(s.password), s.token.value}
	s.mu.Unlock()
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(text))
	if runes := []rune(text); len(runes) > maxExcerpt {
		text = string(runes[:maxExcerpt]) + "…"
	}
	return text
}

// explain adds to an error of the transport what to do about it.
func explain(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err // the wrapper repeats the address, including the query
	}
	if cert := (*tls.CertificateVerificationError)(nil); errors.As(err, &cert) {
		return fmt.Errorf("set LASTCALL_NACOS_CA_FILE to the authority of the server's certificate: %w", err)
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the connection was closed without an answer: %w", err)
	}
	return err
}
