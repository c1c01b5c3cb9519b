package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// Without a token, whoever reaches the port can drain the pod: it is said once,
// with what sets one.
func TestMissingTokenIsWarnedOf(t *testing.T) {
	for _, test := range []struct {
		env  []string
		want int
	}{
		{nil, 1},
		{[]string{"LASTCALL_LISTEN=10.0.0.1:8099"}, 1},
		{[]string{"LASTCALL_LISTEN=[::]:8099"}, 1},
		{[]string{"LASTCALL_TOKEN=secret"}, 0},
		{[]string{"LASTCALL_LISTEN=127.0.0.1:8099"}, 0},
		{[]string{"LASTCALL_LISTEN=[::1]:8099"}, 0},
		{[]string{"LASTCALL_LISTEN=localhost:8099"}, 0},
	} {
		t.Run(strings.Join(test.env, " "), func(t *testing.T) {
			environment(t, test.env...)
			p, err := configure()
			if err != nil {
				t.Fatal(err)
			}
			before := slog.Default()
			defer slog.SetDefault(before)
			var log bytes.Buffer
			slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
			p.warn()
			if got := strings.Count(log.String(), "anyone who reaches the port can drain the pod"); got != test.want {
				t.Errorf("said %d times, want %d:\n%s", got, test.want, &log)
			}
			if test.want > 0 && (!strings.Contains(log.String(), "LASTCALL_TOKEN=") || !strings.Contains(log.String(), "Authorization")) {
				t.Errorf("it does not say what sets one:\n%s", &log)
			}
		})
	}
}
