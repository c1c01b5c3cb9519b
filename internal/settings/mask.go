package settings

import (
	"net/url"
	"strings"

	"lastcall/internal/fetch"
)

// mask stands for what is not printed.
const mask = "***"

// maskURLs returns a URL, or a comma-separated list of URLs, without the parts that
// may be secret. If one of them cannot be parsed, all are masked, because a comma
// may be part of a password, which then continues in the next entry.
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
// socket. It reports whether it could parse the value. It also accepts HOST:PORT
// without a scheme, as Consul's variables do.
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
