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

// host is an instance as answers hold it.
type host struct {
	IP        string            `json:"ip"`
	Port      int               `json:"port"`
	Cluster   string            `json:"clusterName"`
	Weight    float64           `json:"weight"`
	Enabled   *bool             `json:"enabled"`   // nil: not told
	Ephemeral *bool             `json:"ephemeral"` // nil: not told
	Healthy   *bool             `json:"healthy"`   // nil: not told
	Metadata  map[string]string `json:"metadata"`
}

// isAt reports whether the instance leads to an address.
func (h *host) isAt(ip netip.Addr, port int) bool {
	got, err := netip.ParseAddr(strings.Trim(h.IP, "[]"))
	return err == nil && got.Unmap().WithZone("") == ip && h.Port == port
}

// available reports whether clients use the instance.
func (h *host) available() bool { return h.Enabled == nil || *h.Enabled }

// valid reports whether the instance alone keeps clients from protecting
// themselves from an empty list (ServiceInfo.validate in Nacos' client).
func (h *host) valid() bool {
	return h.available() && (h.Healthy == nil || *h.Healthy) && h.Weight > 0
}

// result is the form of answers of the API from v2 on.
type result struct {
	Code    *int            `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data"`
}

// The codes of v2 and v3 that say that something is not there (ErrorCode in
// Nacos' module api): a resource, an instance, a service; instanceError is what a
// change of an instance of an unknown service is answered.
const (
	resourceNotFound = 20004
	instanceNotFound = 21003
	instanceError    = 21004
	serviceNotFound  = 21008
)

// result reads the answer as one of the API from v2 on. What another server
// answers for a path that it does not have, looks different.
func (a answer) result() (result, bool) {
	var r result
	err := json.Unmarshal(a.body, &r)
	return r, err == nil && r.Code != nil
}

// ofAPI reports whether the answer has the form of those from v2 on.
func (a answer) ofAPI() bool {
	_, ok := a.result()
	return ok
}

// absent reports whether the server does not have what was called: not the
// instance, but the call. Gateways that have no route say so in many forms.
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

// notFound reports whether the answer says that the instance or its service is
// not there. Servers of v1 say so in words, and with several statuses; rnacos
// says no more than "error".
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

// data returns the payload of a good answer.
func (a answer) data(v version) (json.RawMessage, bool) {
	if a.code != http.StatusOK {
		return nil, false
	}
	if v == v1 {
		return a.body, true
	}
	// The PATCH of v2 answers as that of v1 does.
	if string(bytes.TrimSpace(a.body)) == "ok" {
		return nil, true
	}
	r, ok := a.result()
	return r.Data, ok && *r.Code == 0
}

// maxExcerpt bounds what an error shows of an answer.
const maxExcerpt = 200

// refusal is the error for an answer that is none of those hoped for. It says
// first what to do: reports show no more than the first words.
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
		do = "the server has too much to do, and is asked less"
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

// excerpt is the beginning of an answer, for people, without secrets.
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

// explain adds what to do about a failure to get an answer.
func explain(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err // the rest repeats the address, query and all
	}
	if cert := (*tls.CertificateVerificationError)(nil); errors.As(err, &cert) {
		return fmt.Errorf("set LASTCALL_NACOS_CA_FILE to the authority of the server's certificate: %w", err)
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the connection was closed without an answer: %w", err)
	}
	return err
}
