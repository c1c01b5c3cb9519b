package server

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// limited reads the body of a request, which no call needs, and drops all of
// the request that no call reads: a hook blocks for minutes, and would hold it
// in memory.
func limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !r.ProtoAtLeast(1, 1) {
			w.Header().Set("Connection", "close") // its chunks are not understood
		}
		if r.ContentLength != 0 {
			// Whatever follows the body, by whichever way its end is found, is
			// not taken for a request.
			w.Header().Set("Connection", "close")
			if code, message := readBody(w, r); code != 0 {
				fail(w, code, message)
				return
			}
		}
		kept := http.Header{}
		for _, name := range []string{"Authorization", "User-Agent"} {
			if value := r.Header.Get(name); value != "" {
				kept.Set(name, strings.Clone(value))
			}
		}
		// The server's own copy, too.
		r.Header, r.Trailer, r.RequestURI, r.Host = kept, nil, "", ""
		r.URL = &url.URL{Path: strings.Clone(r.URL.Path), RawPath: strings.Clone(r.URL.RawPath)}
		next.ServeHTTP(w, r)
	})
}

// readBody reads a body to its end, within bodyBytes and bodyLimit. It returns
// the code and the error to answer if that fails, else 0.
func readBody(w http.ResponseWriter, r *http.Request) (code int, message string) {
	if r.ContentLength > bodyBytes {
		return http.StatusRequestEntityTooLarge, "no call takes a body"
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyLimit)) // what cannot be set is a test's
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, bodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge, "no call takes a body"
	case err != nil:
		return http.StatusBadRequest, "the body cannot be read to its end"
	}
	_ = control.SetReadDeadline(time.Time{}) // a hook blocks without an end
	return 0, ""
}
