package settings

import (
	"net/url"
	"strings"

	"lastcall/internal/fetch"
)

// mask stands for what is not printed.
const mask = "***"

// maskURLs returns a URL, or a comma-separated list of URLs, without what may
// be secret in it. Where one of them cannot be read, all are masked: a comma
// may be part of a password, whose other part then is another entry.
func maskURLs(value string, list bool) string {
	entries := []string{value}
	if list {
		entries = strings.Split(value, ",")
	}
	for i, entry := range entries {
		masked, ok := maskURL(strings.TrimSpace(entry))
		if !ok {
			return mask
		}
		entries[i] = masked
	}
	return strings.Join(entries, ",")
}

// maskURL masks the userinfo and the query of a URL or of the address of a Unix
// socket. It reports whether it could read it. HOST:PORT without a scheme is
// read too, as Consul's variables have it.
func maskURL(value string) (string, bool) {
	if value == "" {
		return "", true
	}
	if socket, ok := strings.CutPrefix(value, "unix:///"); ok {
		if strings.ContainsAny(socket, "@?#") {
			return "", false
		}
		return value, true
	}
	if !strings.Contains(value, "://") {
		u, ok := fetch.Address("http://" + value)
		return value, ok && u.User == nil && u.RawQuery == ""
	}
	u, ok := fetch.Address(value)
	if !ok {
		return "", false
	}
	shown := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	text := shown.String()
	if u.User != nil {
		text = strings.Replace(text, "://", "://"+mask+"@", 1)
	}
	if u.RawQuery != "" {
		text += "?" + mask
	}
	return text, true
}
