package steps

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"lastcall/drain"
	"lastcall/internal/lazyregexp"
)

// values are the values of a file's variables: those that are fixed at start,
// and those that its steps set.
type values struct {
	fixed map[string]string
	set   map[string]string
}

func (v values) get(name string) (string, bool) {
	if value, ok := v.set[name]; ok {
		return value, true
	}
	value, ok := v.fixed[name]
	return value, ok
}

// with returns a copy of v in which the variables in more are set, too.
func (v values) with(more map[string]string) values {
	set := maps.Clone(v.set)
	if set == nil {
		set = map[string]string{}
	}
	maps.Copy(set, more)
	return values{fixed: v.fixed, set: set}
}

// source provides the values of variables when a file is parsed.
type source struct {
	given  map[string]string // a preset's own variables; they may be empty
	secret map[string]bool   // those of given that are secret
	pod    drain.Pod
}

// lookup returns a variable's value. A variable that is set but empty counts as
// not set, except a preset's own.
func (s source) lookup(name string) (string, bool) {
	if value, ok := s.given[name]; ok {
		return value, true
	}
	value := os.Getenv(name)
	switch name { // known even if they are not in the environment
	case "LASTCALL_POD_NAME":
		value = s.pod.Name
	case "LASTCALL_POD_IP":
		value = s.pod.IP
	case "LASTCALL_HOST_IP":
		value = s.pod.HostIP
	case "LASTCALL_APP_PORT":
		if value = ""; s.pod.AppPort != 0 {
			value = strconv.Itoa(s.pod.AppPort)
		}
	}
	return value, value != ""
}

// secretName matches names of variables whose values are not shown.
var secretName = lazyregexp.New(`(?i)(token|password|passwd|secret|credential|_auth|_key|apikey)$`)

func (s source) isSecret(name string) bool { return s.secret[name] || secretName().MatchString(name) }

// secrets returns the values that must not be shown, longest first.
func secrets(fixed map[string]string, isSecret func(string) bool) []string {
	var all []string
	for name, value := range fixed {
		if isSecret(name) && value != "" {
			all = append(all, value)
		}
		for _, found := range userinfo().FindAllStringSubmatch(value, -1) {
			all = append(all, found[1])
		}
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	return all
}

// userinfo matches the part between the scheme and the host of a URL.
var userinfo = lazyregexp.New(`://([^/@,\s]*)@`)

// secretQuery matches a secret in the query of a URL.
var secretQuery = lazyregexp.New(`(?i)([?&][^=&\s]*(?:token|key|secret|passw|auth)[^=&\s]*=)[^&\s"']+`)

// hide returns s without the secrets.
func hide(s string, secrets []string) string {
	for _, secret := range secrets {
		s = strings.ReplaceAll(s, secret, "***")
	}
	return secretQuery().ReplaceAllString(userinfo().ReplaceAllString(s, "://***@"), "$1***")
}
