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

// explain adds to an error what was being done, at which address, and, if
// known, what to do about it. needs names the ACL rules that the call needs.
// The cause keeps its type for errors.Is. The error contains neither the token
// nor the URL with its query.
func (r *Registry) explain(doing, needs string, err error) error {
	var status api.StatusError
	if errors.As(err, &status) {
		err = answer(status)
	} else if inURL := (*url.Error)(nil); errors.As(err, &inURL) {
		err = inURL.Err
	}
	advice := advise(status.Code, needs, err.Error())
	switch {
	case advice == "":
		return fmt.Errorf("consul at %s: %s: %w", r.at, doing, err)
	case status.Code == http.StatusForbidden:
		// Consul's own text comes last: it is long, and is truncated.
		return fmt.Errorf("consul at %s: %s: %s: %w", r.at, doing, advice, err)
	}
	return fmt.Errorf("consul at %s: %s: %w: %s", r.at, doing, err, advice)
}

// advise returns what a user can do about a failure; empty if that is not
// known.
func advise(code int, needs, text string) string {
	has := func(part string) bool { return strings.Contains(text, part) }
	switch {
	case code == http.StatusForbidden && has("Permission denied"):
		return "the token in CONSUL_HTTP_TOKEN needs " + needs
	case code == http.StatusForbidden && has("ACL not found"):
		return "Consul does not know the token in CONSUL_HTTP_TOKEN; it may have expired or been deleted"
	case code == http.StatusForbidden && has("Access is restricted"):
		return "allow the pod's address in http_config.allow_write_http_from of Consul's agent"
	case has("x509:"):
		return "set CONSUL_CACERT to the CA that signed the server's certificate, and CONSUL_TLS_SERVER_NAME to the name in it where that is not the address"
	case has("HTTP request to an HTTPS server"):
		return "set CONSUL_HTTP_SSL=true, or https:// in CONSUL_HTTP_ADDR"
	case has("HTTP response to HTTPS client"):
		return "set http:// in CONSUL_HTTP_ADDR, and not CONSUL_HTTP_SSL"
	case has("certificate required"), has("bad certificate"):
		return "set CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY to a certificate that the server accepts"
	case has("connection refused"), has("no such host"):
		return "is CONSUL_HTTP_ADDR right?"
	case code/100 == 3:
		return "is CONSUL_HTTP_ADDR right? Redirects are not followed"
	}
	return ""
}

// answer returns an error with the status and body of a response other than
// 200, on one short line. The body can come from anything between lastcall and
// Consul, and be of any length.
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

// is404 reports whether Consul answered that it does not have what was
// requested.
func is404(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}
