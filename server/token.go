package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
)

// authorized requires the token, if there is one.
func authorized(token string) func(http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	var log refusals
	return func(next http.Handler) http.Handler {
		if token == "" {
			return next
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			scheme, given, found := strings.Cut(r.Header.Get("Authorization"), " ")
			if !found || !strings.EqualFold(scheme, "Bearer") {
				log.refused(r, "no token")
				w.Header().Set("WWW-Authenticate", "Bearer")
				fail(w, http.StatusUnauthorized, "the header Authorization: Bearer TOKEN is missing; TOKEN is LASTCALL_TOKEN's value")
				return
			}
			// Hashes have the same length, so that the time of the comparison
			// reveals nothing, not even the token's length.
			sum := sha256.Sum256([]byte(strings.TrimSpace(given)))
			if subtle.ConstantTimeCompare(sum[:], want[:]) != 1 {
				log.refused(r, "another token")
				fail(w, http.StatusForbidden, "the token is not LASTCALL_TOKEN's value")
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// logRefusalsEvery is the minimum time between two log lines about refused
// calls: a caller without a token must not be able to fill the log.
const logRefusalsEvery = 10 * time.Second

// refusals logs calls that were refused. A refused hook shows only in the log:
// the kubelet ignores the answer.
type refusals struct {
	mu  sync.Mutex
	log rateLimitedLog
}

func (l *refusals) refused(r *http.Request, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log.may(time.Now()) {
		agent := r.UserAgent()
		slog.Warn("http: refused a call without LASTCALL_TOKEN's value; on the node's network (hostNetwork) it may be another pod's hook",
			"path", r.URL.Path, "given", why, "caller", r.RemoteAddr, "agent", agent[:min(len(agent), 100)])
	}
}
