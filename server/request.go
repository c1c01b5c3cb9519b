package server

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// limited drops everything of a request that no handler reads, because a hook
// blocks for minutes and would hold it in memory. Then it reads the body, which
// no handler needs.
func limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kept := http.Header{}
		for _, name := range []string{"Authorization", "User-Agent"} {
			if value := r.Header.Get(name); value != "" {
				kept.Set(name, strings.Clone(value))
			}
		}
		// This also clears the server's own copy.
		r.Header, r.Trailer, r.RequestURI, r.Host = kept, nil, "", ""
		r.URL = &url.URL{Path: strings.Clone(r.URL.Path), RawPath: strings.Clone(r.URL.RawPath), RawQuery: strings.Clone(r.URL.RawQuery)}
		dropHeader(r.Context())
		if r.ContentLength != 0 {
			if code, message := readBody(w, r); code != 0 {
				fail(w, code, message)
				return
			}
			r.Trailer = nil
		}
		next.ServeHTTP(w, r)
	})
}

// readBody reads a body to its end, within bodyBytes and bodyLimit. If that
// fails, it returns the status code and the error to answer, else 0.
func readBody(w http.ResponseWriter, r *http.Request) (code int, message string) {
	control := http.NewResponseController(w)
	// The deadline also limits what the server reads of a body after the
	// answer. Setting it fails only in tests.
	_ = control.SetReadDeadline(time.Now().Add(bodyLimit))
	if r.ContentLength > bodyBytes {
		return http.StatusRequestEntityTooLarge, "no call takes a body"
	}
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, bodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge, "no call takes a body"
	case err != nil:
		return http.StatusBadRequest, "the body cannot be read to its end"
	}
	_ = control.SetReadDeadline(time.Time{}) // a hook may block for any time
	return 0, ""
}
