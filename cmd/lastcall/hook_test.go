package main

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// What a hook makes of its flags and of the app's environment. A mistake never
// costs it its command.
func TestReadHook(t *testing.T) {
	for name, c := range map[string]struct {
		args, env        string // separated by spaces
		address          string // 127.0.0.1:8099 if empty
		limit            time.Duration
		token            string
		command, mistake string
	}{
		"nothing":                  {limit: 25 * time.Second},
		"a command":                {args: "-- nginx -s quit", limit: 25 * time.Second, command: "nginx -s quit"},
		"without the dashes":       {args: "nginx -s quit", limit: 25 * time.Second, command: "nginx -s quit"},
		"a command with dashes":    {args: "-- a -- b", limit: 25 * time.Second, command: "a -- b"},
		"flags":                    {args: "-port 9099 -grace-period 60s -reserve 10s -token x -- a", address: "127.0.0.1:9099", limit: 50 * time.Second, token: "x", command: "a"},
		"variables":                {env: "LASTCALL_PORT=9099 LASTCALL_GRACE_PERIOD=60s LASTCALL_RESERVE=0s LASTCALL_TOKEN=y", address: "127.0.0.1:9099", limit: time.Minute, token: "y"},
		"flags before variables":   {args: "-port 1 -grace-period 9s", env: "LASTCALL_PORT=9099 LASTCALL_GRACE_PERIOD=60s", address: "127.0.0.1:1", limit: 4 * time.Second},
		"the sidecar's variables":  {env: "LASTCALL_LISTEN=:9099", address: "127.0.0.1:9099", limit: 25 * time.Second},
		"one address":              {env: "LASTCALL_LISTEN=10.0.0.1:9099", address: "10.0.0.1:9099", limit: 25 * time.Second},
		"all addresses":            {env: "LASTCALL_LISTEN=[::]:9099", address: "127.0.0.1:9099", limit: 25 * time.Second},
		"a Service named lastcall": {env: "LASTCALL_PORT=tcp://10.96.0.7:80", limit: 25 * time.Second},

		"a port that is none":           {args: "-port 70000 -- a", limit: 25 * time.Second, command: "a", mistake: `port "70000"`},
		"a variable that is no number":  {args: "-- a", env: "LASTCALL_PORT=http", limit: 25 * time.Second, command: "a", mistake: `port "http"`},
		"an address that is none":       {args: "-- a", env: "LASTCALL_LISTEN=8099", limit: 25 * time.Second, command: "a", mistake: "LASTCALL_LISTEN="},
		"a duration that is none":       {args: "-- a", env: "LASTCALL_GRACE_PERIOD=60", limit: 25 * time.Second, command: "a", mistake: "LASTCALL_GRACE_PERIOD="},
		"a negative duration":           {args: "-- a", env: "LASTCALL_RESERVE=-1s", limit: 25 * time.Second, command: "a", mistake: "LASTCALL_RESERVE="},
		"a reserve that leaves nothing": {args: "-grace-period 5s -- a", limit: 25 * time.Second, command: "a", mistake: "leaves nothing"},
		"an unknown flag":               {args: "-prot 9099 -- a b", limit: 25 * time.Second, command: "a b", mistake: "-prot"},
		"an unknown flag, no command":   {args: "-prot 9099", limit: 25 * time.Second, mistake: "-prot"},
		"a file that is not there":      {args: "-token-file nowhere -- a", limit: 25 * time.Second, command: "a", mistake: "-token-file"},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{}
			for _, v := range strings.Fields(c.env) {
				name, value, _ := strings.Cut(v, "=")
				env[name] = value
			}
			h, help := readHook(strings.Fields(c.args), func(name string) string { return env[name] }, io.Discard)
			if help {
				t.Fatal("it shows its help")
			}
			if c.address == "" {
				c.address = "127.0.0.1:8099"
			}
			if h.Address != c.address || h.Limit != c.limit || h.Token != c.token || !slices.Equal(h.command, strings.Fields(c.command)) {
				t.Errorf("%s, %v, token %q, command %q", h.Address, h.Limit, h.Token, h.command)
			}
			if c.mistake == "" && len(h.mistakes) > 0 || c.mistake != "" && (len(h.mistakes) != 1 || !strings.Contains(h.mistakes[0].Error(), c.mistake)) {
				t.Errorf("mistakes %v, want one with %q", h.mistakes, c.mistake)
			}
		})
	}
}

func TestHookHelp(t *testing.T) {
	var out, problems strings.Builder
	if code := run([]string{"hook", "-help"}, &out, &problems); code != exitOK || !strings.Contains(out.String(), "-grace-period") || problems.Len() > 0 {
		t.Errorf("exit code %d, %s, %s", code, out.String(), problems.String())
	}
}
