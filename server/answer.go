package server

import (
	"bytes"
	"encoding/json"
	"net/http"
)

// answer sends v as JSON.
func answer(w http.ResponseWriter, code int, v any) { answerJSON(w, code, encode(v)) }

// answerShared sends the value of v, which is produced once for all callers
// that ask at the same time.
func answerShared(w http.ResponseWriter, r *http.Request, code int, v *shared[[]byte]) {
	body, ok := v.get(r.Context())
	if !ok {
		fail(w, http.StatusInternalServerError, "the answer could not be produced, see the log")
		return
	}
	answerJSON(w, code, body)
}

// answerJSON sends a body that is already JSON.
func answerJSON(w http.ResponseWriter, code int, body []byte) {
	if body == nil {
		// Only a value that JSON cannot represent leads here, and no handler
		// has one.
		code, body = http.StatusInternalServerError, []byte(`{"error": "the answer cannot be encoded"}`+"\n")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body) // the caller may have left
}

// encode returns v as indented JSON for people, or nil if v cannot be encoded.
func encode(v any) []byte {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false) // errors often hold <html>
	if err := e.Encode(v); err != nil {
		return nil
	}
	return body.Bytes()
}

// fail sends an error.
func fail(w http.ResponseWriter, code int, message string) {
	answer(w, code, struct {
		Error string `json:"error"`
	}{message})
}

// ok sends the answer of a successful probe.
func ok(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}
