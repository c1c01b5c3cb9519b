package nginx

import (
	"strings"
	"testing"
)

// answer is the page of nginx 1.22.1.
const answer = "Active connections: 4 \nserver accepts handled requests\n 26 26 28 \nReading: 1 Writing: 2 Waiting: 1 \n"

// pages are answers that can be parsed.
var pages = map[string]status{
	answer: {requests: 28, active: 4, reading: 1, writing: 2},
	"Active connections: 1 \nserver accepts handled requests\n 1 1 1 \nReading: 0 Writing: 1 Waiting: 0 \n": {requests: 1, active: 1, writing: 1},
	// Tengine's page.
	"Active connections: 1 \nserver accepts handled requests request_time\n 1140 1140 1140 75806 \nReading: 0 Writing: 1 Waiting: 0 \n": {requests: 1140, active: 1, writing: 1},
	strings.ReplaceAll(answer, "\n", "\r\n"): {requests: 28, active: 4, reading: 1, writing: 2},
}

// garbage holds answers that must be refused.
var garbage = []string{
	"",
	"<html><body>Welcome to nginx!</body></html>",
	answer[:len(answer)/2],
	"Active connections: 4 \n",
	strings.Replace(answer, "28", "-28", 1),
	strings.Replace(answer, "28", "18446744073709551616", 1),
	strings.Replace(answer, "Writing: 2", "Writing: 18446744073709551615", 1), // 0 − 1 in a counter of nginx
	strings.Replace(answer, "Reading: 1", "Reading: ", 1),
	answer + answer,
	strings.Replace(answer, "connections: 4", "connections: 0", 1),
	strings.Replace(answer, "28", "0", 1),
}

func TestParse(t *testing.T) {
	for body, want := range pages {
		if got, err := parse([]byte(body)); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", body, got, err, want)
		}
	}
	for _, body := range garbage {
		if got, err := parse([]byte(body)); err == nil {
			t.Errorf("%q was read as %+v", body, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for body := range pages {
		f.Add([]byte(body))
	}
	for _, body := range garbage {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := parse(body)
		if err == nil && (s.reading < 0 || s.writing < 0 || s.reading+s.writing < s.reading) {
			t.Fatalf("%q was read as %+v", body, s)
		}
	})
}
