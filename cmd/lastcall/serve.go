package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"lastcall/drain"
	"lastcall/registries/eureka"
	"lastcall/server"
)

// The exit codes.
const (
	exitOK       = 0 // it drained, or was stopped while nothing was in flight
	exitFailed   = 1 // it could not start, or was cut short with work in flight
	exitBadInput = 2 // bad configuration, or an unknown command
)

// lastAnswers is how long it may take to write the responses to callers that
// waited for the end of the drain. It fits in the rest of the grace period.
const lastAnswers = 100 * time.Millisecond

// heapGrowth makes the garbage collector run when the heap has grown by a
// quarter, and first at 1 MB. A sidecar holds little, and the garbage that Go
// allows by default (up to 4 MB) is multiplied by the number of pods.
const heapGrowth = 25

// serve is the sidecar. It returns the exit code when the process may end.
func serve() int {
	p, err := configure()
	if err != nil {
		printErrors(os.Stderr, err)
		writeTerminationMessage("bad configuration:\n" + err.Error())
		return exitBadInput
	}
	p.setLog()
	debug.SetGCPercent(heapGrowth)
	limitMemory()
	eureka.RouteLogs()
	p.warn()

	drainer := drain.New(p.drain)
	handleSignals(drainer) // before anybody can know that the process is there
	listener, err := server.Listen(p.Listen)
	if err != nil {
		slog.Error("http: cannot listen; is LASTCALL_LISTEN's port taken by another container of the pod?", "address", p.Listen, "error", err)
		writeTerminationMessage("cannot listen: " + err.Error())
		return exitFailed
	}
	edge := server.New(drainer, server.Options{Token: p.Token, AppReady: p.AppReadyURL, Version: version})
	ctx, broken := context.WithCancel(context.Background())
	defer broken()
	go func() {
		if err := edge.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("http: the server has ended", "error", err)
			broken() // nobody can ask for anything any more
		}
	}()
	slog.Info("serving", "address", listener.Addr().String(), "version", version,
		"registries", p.Registries, "registers", p.registersIn(), "counters", p.Counters, "budget", p.drain.Budget().String())

	err = drainer.Run(ctx)

	closing, cancel := context.WithTimeout(context.Background(), lastAnswers)
	defer cancel()
	if err := edge.Shutdown(closing); err != nil {
		slog.Debug("http: not every caller took its answer", "error", err)
	}
	p.flush()
	if err != nil {
		slog.Error("ending", "error", err)
		return exitFailed
	}
	slog.Info("ending")
	return exitOK
}

// handleSignals passes the kubelet's SIGTERM and a terminal's SIGINT to the
// drainer.
func handleSignals(d *drain.Drainer) {
	received := make(chan os.Signal, 4)
	signal.Notify(received, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for s := range received {
			slog.Info("signal received", "signal", s.String())
			if s == syscall.SIGINT {
				d.Interrupt()
			} else {
				d.Stop()
			}
		}
	}()
}

func (p *process) setLog() {
	options := &slog.HandlerOptions{Level: p.level}
	var handler slog.Handler = slog.NewJSONHandler(os.Stderr, options)
	if p.LogFormat == "text" {
		handler = slog.NewTextHandler(os.Stderr, options)
	}
	slog.SetDefault(slog.New(handler))
}

// warn logs what is allowed but rarely intended.
func (p *process) warn() {
	if needed, sum := p.drain.NeededBudget(); needed > p.drain.Budget() {
		slog.Warn("the grace period is too short for clients to forget the pod: drains may expire",
			"budget", p.drain.Budget().String(), "needed", needed.String(), "sum", sum,
			"set", "terminationGracePeriodSeconds and LASTCALL_GRACE_PERIOD to "+(needed+p.Reserve).String()+" or more, and more by the longest request")
	}
	if p.WhenListed && !p.awaitsListing() {
		slog.Warn("LASTCALL_READY_WHEN_LISTED has no effect: LASTCALL_REGISTRIES names no registry that lists instances")
	}
	if p.Token == "" && !p.listensOnLoopback() {
		slog.Warn("anyone who reaches the port can drain the pod: /prestop, /poststart and /drain need no token; set one, or keep others away by a NetworkPolicy",
			"address", p.Listen, "set", tokenExample)
	}
	if len(p.drain.Counters) == 0 {
		slog.Warn("no counter: requests in flight are not waited for; set LASTCALL_APP_PORT, or LASTCALL_COUNTERS")
	}
	if len(p.blind) > 0 {
		slog.Warn("counter: requests that come and go between two readings are not seen: a drain can end while clients keep coming; set LASTCALL_APP_PORT, or LASTCALL_PROMETHEUS_TOTAL for the prometheus counter",
			"counters", p.blind)
	}
	if len(p.AppPorts) == 0 {
		slog.Warn("LASTCALL_APP_PORT is not set: lastcall cannot distinguish a restart of the app from the pod's deletion, unless the app's postStart hook calls /poststart")
	}
}

// awaitsListing reports whether there is a registry that lists instances.
func (p *process) awaitsListing() bool {
	for _, r := range p.drain.Registries {
		if l, ok := r.Registry.(drain.ListReporter); !ok || l.Lists() {
			return true
		}
	}
	return false
}
