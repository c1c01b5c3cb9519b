package consul

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/hashicorp/consul/api"
)

// explain says what was being done when a call failed, at which address, and,
// where it can be told, what to do about it. needs names the ACL rules that
// the call needs. It keeps the cause's type for errors.Is, and holds neither
// the token nor the URL with its query.
func (r *Registry) explain(doing, needs string, err error) error {
	var status api.StatusError
	if errors.As(err, &status) {
		err = answer(status)
	} else if inURL := (*url.Error)(nil); errors.As(err, &inURL) {
		err = inURL.Err
	}
	return fmt.Errorf("consul at %s: %s: %w%s", r.at, doing, err, advice(status, needs, err))
}

// advice is what a user can do about a failure, after a colon, or nothing.
func advice(status api.StatusError, needs string, err error) string {
	text := err.Error()
	switch {
	case status.Code == http.StatusForbidden && strings.Contains(text, "Permission denied"):
		return ": give the token in CONSUL_HTTP_TOKEN a policy with " + needs
	case status.Code == http.StatusForbidden && strings.Contains(text, "ACL not found"):
		return ": Consul does not know the token in CONSUL_HTTP_TOKEN; it may have expired or been deleted"
	case status.Code == http.StatusForbidden && strings.Contains(text, "Access is restricted"):
		return ": allow the pod's address in http_config.allow_write_http_from of Consul's agent"
	case strings.Contains(text, "x509:"):
		return ": set CONSUL_CACERT to the CA that signed the server's certificate, and CONSUL_TLS_SERVER_NAME to the name in it where that is not the address"
	case strings.Contains(text, "HTTP request to an HTTPS server"):
		return ": set CONSUL_HTTP_SSL=true, or https:// in CONSUL_HTTP_ADDR"
	case strings.Contains(text, "HTTP response to HTTPS client"):
		return ": set http:// in CONSUL_HTTP_ADDR, and not CONSUL_HTTP_SSL"
	case strings.Contains(text, "certificate required"), strings.Contains(text, "bad certificate"):
		return ": set CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY to a certificate that the server accepts"
	case strings.Contains(text, "connection refused"), strings.Contains(text, "no such host"):
		return ": is CONSUL_HTTP_ADDR right?"
	case status.Code/100 == 3:
		return ": is CONSUL_HTTP_ADDR right? Redirects are not followed"
	}
	return ""
}

// answer is an answer that is not 200, as one short line. A body can be
// anything that stands in between, of any length.
func answer(status api.StatusError) error {
	const most = 300
	body := strings.Join(strings.FieldsFunc(status.Body, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
	if len(body) > most {
		body = strings.ToValidUTF8(body[:most], "") + "…"
	}
	if body == "" {
		return fmt.Errorf("HTTP status %d", status.Code)
	}
	return fmt.Errorf("HTTP status %d (%s)", status.Code, body)
}

// is404 tells whether an agent has answered that it does not have what was
// asked for.
func is404(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}
