// Command app contains everything that the e2e tests run in pods besides Lastcall: the
// app, its clients, and a job.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usage = `app COMMAND [FLAGS]
  serve     an ordinary app
  consul    the same, announced in Consul
  load      a constant load of requests, and their counts at /counts
  discover  the same by clients that find their pods in a registry
  socket    a client that opens a WebSocket and keeps it
  job       some work that ends
  note      leaves its arguments as the container's termination message
  touch     creates an empty file`

func main() {
	command, ok := map[string]func(context.Context, []string) error{
		"serve":    serve,
		"consul":   inConsul,
		"load":     makeLoad,
		"discover": discover,
		"socket":   keepSocket,
		"job":      job,
		"note":     note,
		"touch":    touch,
	}[strings.Join(os.Args[1:min(2, len(os.Args))], "")]
	if !ok {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := command(ctx, os.Args[2:])
	cancel()
	if err != nil {
		slog.Error("ended", "error", err)
		os.Exit(1)
	}
}

// note is the command of a hook. It writes its arguments to the termination message,
// which shows later that it ran.
func note(_ context.Context, args []string) error {
	return os.WriteFile("/dev/termination-log", []byte(strings.Join(args, " ")), 0o600) //nolint:gosec // the arguments are the content, not the path
}

// touch creates an empty file. The container has no other program that could.
func touch(_ context.Context, args []string) error {
	return os.WriteFile(strings.Join(args, " "), nil, 0o600) //nolint:gosec // its caller names the file
}

// job works for a while and then ends.
func job(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("job", flag.ExitOnError)
	took := flags.Duration("for", 2*time.Second, "how long it works")
	if err := flags.Parse(args); err != nil {
		return err
	}
	select {
	case <-time.After(*took):
		return nil
	case <-ctx.Done():
		return errors.New("stopped before its work was done")
	}
}

// listen serves until ctx ends. It does not wait for calls in progress.
func listen(ctx context.Context, address string, handler http.Handler) error {
	server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func writeJSON(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(what); err != nil {
		slog.Warn("answering", "error", err)
	}
}
