package nacos

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func (h *harness) send(t *testing.T, method, path string, form url.Values) {
	t.Helper()
	if code, body := h.request(t, method, path, form); code != http.StatusOK {
		t.Fatalf("%s %s: status %d: %s", method, path, code, body)
	}
}

func (h *harness) get(t *testing.T, path string, q url.Values, to any) {
	t.Helper()
	code, body := h.request(t, http.MethodGet, path, q)
	if err := json.Unmarshal(body, to); code != http.StatusOK || err != nil {
		t.Fatalf("GET %s: status %d, %v: %s", path, code, err, body)
	}
}

// request makes one call as a client of the app.
func (h *harness) request(t *testing.T, method, path string, form url.Values) (int, []byte) {
	t.Helper()
	if h.cfg.Username != "" {
		if h.token == "" && !strings.Contains(path, "/auth/") {
			_, body := h.request(t, http.MethodPost, "/v1/auth/login", url.Values{"username": {fakeUser}, "password": {fakePassword}})
			var got struct {
				AccessToken string `json:"accessToken"`
			}
			if err := json.Unmarshal(body, &got); err != nil {
				t.Fatal(err)
			}
			h.token = got.AccessToken
		}
		form.Set("accessToken", h.token)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, h.url+path+"?"+form.Encode(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := (&http.Client{Transport: h.transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body.Bytes()
}
