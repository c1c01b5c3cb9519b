package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"lastcall/e2e/load"
)

// app is an ordinary web app with switches that simulate faults.
type app struct {
	pod          string
	drainingFile string
	sick         atomic.Bool
}

// serve runs the app until SIGTERM. Then, like ordinary apps, it accepts no new
// connections and ends when its requests are answered.
func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	address := flags.String("listen", ":8080", "address")
	drainingFile := flags.String("draining-file", "", "answer with Connection: close while this file is there")
	patience := flags.Duration("patience", 10*time.Second, "how long requests may take after SIGTERM; 0: exit at once")
	linger := flags.Duration("linger", 0, "how long to serve as usual after SIGTERM")
	deaf := flags.Bool("deaf", false, "go on after SIGTERM, as a hung app does")
	startsWith := flags.String("starts-with", "", "do not listen before this `file` exists")
	hangsOnce := flags.String("hangs-once", "", "if this `file` does not exist, create it and do not listen until the app is started again")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *deaf {
		ctx = context.WithoutCancel(ctx)
	}
	if !started(ctx, *startsWith, *hangsOnce) {
		slog.Info("told to stop before it listened")
		return nil
	}
	a := &app{pod: os.Getenv("POD_NAME"), drainingFile: *drainingFile}
	server := &http.Server{Addr: *address, Handler: a.routes(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	slog.Info("told to stop")
	<-time.After(*linger)
	patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), *patience)
	defer cancel()
	if err := server.Shutdown(patient); err != nil {
		return errors.Join(errors.New("requests were still under way"), err)
	}
	slog.Info("all requests are answered")
	return nil
}

// started waits until the app may listen. It returns false if ctx ends first.
func started(ctx context.Context, startsWith, hangsOnce string) bool {
	if hangsOnce != "" {
		if _, err := os.Stat(hangsOnce); err != nil {
			if err := os.WriteFile(hangsOnce, nil, 0o600); err != nil {
				slog.Error("cannot remember that it has hung", "error", err)
			}
			<-ctx.Done()
			return false
		}
	}
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		if _, err := os.Stat(startsWith); startsWith == "" || err == nil {
			return true
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return false
		}
	}
}

func (a *app) routes() http.Handler {
	return notKept(a.calls())
}

// notKept closes connections of the API server's proxy after each response. The tests
// call pods through this proxy. It would keep the connections open, and Lastcall would
// be in doubt about them, although they do not belong to the scenario's clients.
func notKept(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Forwarded-Uri") != "" { // the proxy adds this header
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

func (a *app) calls() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /work", func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		// closing checks for the draining file when the response begins.
		if !load.Answer(closing{w, a}, r, a.pod) {
			slog.Warn("the client has gone away", "after", time.Since(began).String())
		}
	})
	mux.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if !a.sick.Load() {
			return
		}
		http.Error(w, "sick", http.StatusInternalServerError)
	})
	mux.HandleFunc("POST /sick", func(http.ResponseWriter, *http.Request) { a.sick.Store(true) })
	mux.HandleFunc("POST /well", func(http.ResponseWriter, *http.Request) { a.sick.Store(false) })
	mux.HandleFunc("POST /kill", kill)
	mux.HandleFunc("GET /socket", keepOpen)
	return mux
}

// closing adds Connection: close to responses that begin while the draining file
// exists.
type closing struct {
	http.ResponseWriter
	app *app
}

func (c closing) Write(p []byte) (int, error) {
	if c.app.drainingFile != "" {
		if _, err := os.Stat(c.app.drainingFile); err == nil {
			c.Header().Set("Connection", "close")
		}
	}
	return c.ResponseWriter.Write(p)
}

// kill sends SIGKILL to every visible process with the name in ?program=NAME: those of
// this container, or of the whole pod if it has shareProcessNamespace.
func kill(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("program")
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	killed := 0
	for _, file := range files {
		comm, err := os.ReadFile(file)
		if err != nil || string(bytes.TrimSpace(comm)) != name {
			continue // the process has ended meanwhile, or has another name
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		killed++
	}
	if killed == 0 {
		http.Error(w, "no process is called "+name, http.StatusNotFound)
		return
	}
	fmt.Fprintln(w, killed)
}

// keepOpen answers each message on a WebSocket, and never closes it.
func keepOpen(w http.ResponseWriter, r *http.Request) {
	var upgrader websocket.Upgrader
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		slog.Warn("WebSocket", "error", err)
		return
	}
	defer func() { _ = conn.Close() }()
	conn.SetReadLimit(1000)
	for {
		kind, message, err := conn.ReadMessage()
		if err == nil {
			err = conn.WriteMessage(kind, message)
		}
		if err != nil {
			return
		}
	}
}
