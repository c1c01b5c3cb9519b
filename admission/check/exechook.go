package check

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// execHook checks a hook that runs `lastcall hook`. The command runs in the app's
// container, so it knows only its flags and that container's variables.
func execHook(w *workload, c *corev1.Container, at []any, port int32) []Finding {
	command := c.Lifecycle.PreStop.Exec.Command
	var all []Finding
	found := func(rule, message, flag string) {
		fix := append([]string{command[0], command[1]}, strings.Fields(flag)...)
		all = append(all, w.finding(rule, at, fmt.Sprintf("container %s: %s", c.Name, message),
			fmt.Sprintf("exec: {command: [%s]}", strings.Join(append(fix, command[2:]...), ", "))))
	}

	grace := time.Duration(w.grace()) * time.Second
	if text, known := effective(c, "grace-period", "LASTCALL_GRACE_PERIOD", "30s"); known {
		if limit, err := time.ParseDuration(text); err == nil && limit < grace {
			found("hook-limit", fmt.Sprintf("its hook waits as for a grace period of %s, and the pod's is %s: the app is stopped before the drain ends", short(limit), short(grace)),
				fmt.Sprintf("-grace-period %ds", w.grace()))
		}
	}
	listen := "8099"
	if v, known := effective(c, "", "LASTCALL_LISTEN", ""); known && v != "" {
		listen = v[strings.LastIndex(v, ":")+1:]
	}
	if number, known := effective(c, "port", "LASTCALL_PORT", listen); known && number != strconv.Itoa(int(port)) {
		found("hook-port", fmt.Sprintf("its hook calls port %s, and the sidecar listens on %d: nobody answers", number, port), fmt.Sprintf("-port %d", port))
	}
	token := w.env.values["LASTCALL_TOKEN"]
	sent, known := effective(c, "token", "LASTCALL_TOKEN", "")
	_, file := flagOf(command, "token-file")
	switch {
	case file || !known || token == "" && !w.env.hidden["LASTCALL_TOKEN"]:
	case sent == "":
		found("token", "the sidecar asks for a token (LASTCALL_TOKEN), and its hook sends none: it is refused", "-token "+shownToken(token))
	case token != "" && sent != token:
		found("token", "its hook sends another token than LASTCALL_TOKEN: it is refused", "-token "+token)
	}
	return all
}

// effective returns the value that `lastcall hook` uses: that of its flag, or of the
// container's variable, or otherwise. known reports whether the value is certain.
func effective(c *corev1.Container, flag, variable, otherwise string) (value string, known bool) {
	if value, set := flagOf(c.Lifecycle.PreStop.Exec.Command, flag); set {
		return value, true
	}
	for _, v := range c.Env {
		if v.Name == variable {
			return v.Value, v.ValueFrom == nil
		}
	}
	return otherwise, len(c.EnvFrom) == 0
}

// flagOf returns the value of a flag that stands before the argument "--". The flag
// may be written as -flag value, -flag=value, or with two dashes.
func flagOf(command []string, flag string) (value string, set bool) {
	for i, word := range command {
		if word == "--" || flag == "" {
			return "", false
		}
		name, value, joined := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(word, "-"), "-"), "=")
		switch {
		case !strings.HasPrefix(word, "-") || name != flag:
		case joined:
			return value, true
		case i+1 < len(command):
			return command[i+1], true
		}
	}
	return "", false
}

func shownToken(token string) string {
	if token == "" {
		return "TOKEN"
	}
	return token
}
