package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lastcall/internal/prestop"
)

// The exit codes of a hook without a COMMAND, besides those of serve; and of one
// whose COMMAND cannot be run, as shells have them.
const (
	exitNotDrained = 3
	exitNoAnswer   = 4
	exitCannotRun  = 126
	exitNotFound   = 127
)

const hookUsage = `usage: lastcall hook [flags] [-- COMMAND…]

For exec preStop hooks in the app's container. It calls the sidecar's /prestop,
and retries while the sidecar does not answer, until the pod has drained or the
limit is reached. It then runs COMMAND in place of itself, whatever the outcome of
the drain.

Exit codes: that of COMMAND, 127 if there is no such program, 126 if it cannot be
run. Without COMMAND: 0 if the pod drained, 2 if a flag or a variable is wrong or
the sidecar refused the call, 3 if the pod did not drain (the message says why), 4
if there was no answer within the limit.

`

// hookCall is what a hook is to do.
type hookCall struct {
	prestop.Call
	command  []string
	mistakes []error // what was used instead is the default
}

// hook waits for the drain, and then runs the command, if there is one. The command
// runs in any case: an app that needs it to stop would not stop without it.
func hook(args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	say := func(line string) { fmt.Fprintln(stderr, "lastcall hook: "+line) }
	h, help := readHook(args, getenv, stdout)
	if help {
		return exitOK
	}
	h.Log = say
	for _, mistake := range h.mistakes {
		say(mistake.Error())
	}
	// These would end a hook before its command.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	err := h.Do(ctx)
	if ctx.Err() != nil {
		err = errors.New("told by a signal to wait no longer")
	}
	stop()
	if err != nil {
		say(err.Error() + "; " + h.consequence(err))
	}
	switch {
	case len(h.command) > 0:
		return execCommand(h.command, say)
	case err == nil && len(h.mistakes) == 0:
		return exitOK
	case err == nil || errors.Is(err, prestop.ErrRefused) || len(h.mistakes) > 0:
		return exitBadInput
	case errors.Is(err, prestop.ErrNoAnswer):
		return exitNoAnswer
	default:
		return exitNotDrained
	}
}

// consequence says what follows from an error, and what can be done about it.
func (h *hookCall) consequence(err error) string {
	then := "the hook ends, and the app gets its SIGTERM"
	if len(h.command) > 0 {
		then = fmt.Sprintf("running %q all the same", h.command[0])
	}
	if errors.Is(err, prestop.ErrNoAnswer) {
		then += ". See the sidecar's log (kubectl logs POD -c lastcall --previous): it has ended, or listens on another port (-port, LASTCALL_PORT)"
	}
	return then
}

// execCommand replaces the process with the command, which receives the signals,
// and has the output and the exit code. It returns only if that fails.
func execCommand(command []string, say func(string)) int {
	path, err := exec.LookPath(command[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		say(fmt.Sprintf("cannot run %q: %v: is it in this container's image?", command[0], err))
		if errors.Is(err, os.ErrPermission) {
			return exitCannotRun
		}
		return exitNotFound
	}
	err = syscall.Exec(path, command, os.Environ()) //nolint:gosec // to run it is what the hook is for
	say(fmt.Sprintf("cannot run %q: %v", path, err))
	return exitCannotRun
}

// readHook reads flags and variables. What is wrong with them is a mistake, and
// the default is used: no mistake keeps the command from being run.
func readHook(args []string, getenv func(string) string, stdout io.Writer) (h hookCall, help bool) {
	wrong := func(format string, args ...any) { h.mistakes = append(h.mistakes, fmt.Errorf(format, args...)) }
	duration := func(name string, otherwise, least time.Duration) time.Duration {
		given := getenv(name)
		if given == "" {
			return otherwise
		}
		d, err := time.ParseDuration(given)
		if err != nil || d < least {
			wrong("%s=%q: must be a duration such as 60s; taking %v", name, given, otherwise)
			return otherwise
		}
		return d
	}
	const grace, reserve = 30 * time.Second, 5 * time.Second // as the sidecar's
	flags := flag.NewFlagSet("hook", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	port := flags.Int("port", 0, "the sidecar's port; LASTCALL_PORT, that of LASTCALL_LISTEN, or 8099 if not given")
	token := flags.String("token", "", "the sidecar's token; LASTCALL_TOKEN if not given")
	tokenFile := flags.String("token-file", "", "a file that holds it")
	gracePeriod := flags.Duration("grace-period", duration("LASTCALL_GRACE_PERIOD", grace, time.Second), "the pod's terminationGracePeriodSeconds; LASTCALL_GRACE_PERIOD, or 30s if not given")
	left := flags.Duration("reserve", duration("LASTCALL_RESERVE", reserve, 0), "the part of it that is left to COMMAND and to the app; LASTCALL_RESERVE, or 5s if not given")
	err := flags.Parse(args)
	h.command = flags.Args()
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, hookUsage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return h, true
	case err != nil:
		wrong("%w; `lastcall hook -help` lists the flags", err)
		h.command = nil // what follows the wrong flag may be its value
		if i := slices.Index(args, "--"); i >= 0 {
			h.command = args[i+1:]
		}
	}
	if *gracePeriod < time.Second || *left < 0 || *left >= *gracePeriod {
		wrong("a grace period of %v less a reserve of %v leaves nothing to the drain; taking %v and %v", *gracePeriod, *left, grace, reserve)
		*gracePeriod, *left = grace, reserve
	}
	h.Agent = "lastcall-hook/" + version
	h.Limit = *gracePeriod - *left
	h.Address = sidecarAddress(*port, getenv, wrong)
	h.Token = *token
	if h.Token == "" {
		h.Token = getenv("LASTCALL_TOKEN")
	}
	if *tokenFile != "" {
		content, err := os.ReadFile(*tokenFile)
		if err != nil {
			wrong("-token-file: %w", err)
		}
		h.Token = strings.TrimSpace(string(content))
	}
	return h, false
}

// sidecarAddress is where the sidecar listens: on the loopback that the containers
// of a pod share, unless LASTCALL_LISTEN names another address.
func sidecarAddress(port int, getenv func(string) string, wrong func(string, ...any)) string {
	const otherwise = "8099"
	host, number := "127.0.0.1", otherwise
	if listen := getenv("LASTCALL_LISTEN"); listen != "" {
		at, p, err := net.SplitHostPort(listen)
		if ip := net.ParseIP(at); err != nil {
			wrong("LASTCALL_LISTEN=%q: must be HOST:PORT or :PORT; taking port %s", listen, otherwise)
		} else {
			number = p
			if at != "" && (ip == nil || !ip.IsUnspecified()) {
				host = at
			}
		}
	}
	// The kubelet sets LASTCALL_PORT=tcp://… itself where a Service is named lastcall.
	if p := getenv("LASTCALL_PORT"); p != "" && !strings.Contains(p, "://") {
		number = p
	}
	if port != 0 {
		number = strconv.Itoa(port)
	}
	if n, err := strconv.Atoi(number); err != nil || n < 1 || n > 65535 {
		wrong("port %q: must be from 1 to 65535; taking %s", number, otherwise)
		number = otherwise
	}
	return net.JoinHostPort(host, number)
}
