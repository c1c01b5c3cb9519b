package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"lastcall/e2e/load"
)

// makeLoad sends requests to a URL with ?for=… until it is stopped, and serves the
// counts.
func makeLoad(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	address := flags.String("listen", ":8080", "address of the server for the counts")
	config := loadFlags(flags)
	flags.StringVar(&config.URL, "url", "", "URL of the requests")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return tellCounts(ctx, *address, load.Start(ctx, *config))
}

// loadFlags defines the flags that all commands with a load have.
func loadFlags(flags *flag.FlagSet) *load.Config {
	config := &load.Config{}
	flags.Float64Var(&config.Rate, "rate", 40, "requests a second")
	flags.DurationVar(&config.Shortest, "shortest", 100*time.Millisecond, "the shortest request")
	flags.DurationVar(&config.Longest, "longest", 3*time.Second, "the longest request")
	flags.Float64Var(&config.KeepAlive, "keep-alive", 0.5, "the share of requests on kept connections")
	flags.DurationVar(&config.Idle, "idle", 90*time.Second, "how long a kept connection may be idle")
	flags.StringVar(&config.Body, "body", "", "body of the requests, instead of a few bytes")
	flags.BoolVar(&config.Any, "any", false, "accept a response with any body if its status is 200")
	flags.DurationVar(&config.Patience, "patience", time.Minute, "how long an answer may take beyond the time asked for")
	return config
}

// tellCounts serves the counts of a load at /counts, and ends the load at /finish and
// /stop.
func tellCounts(ctx context.Context, address string, running *load.Load) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, running.Counts()) })
	mux.HandleFunc("POST /finish", func(w http.ResponseWriter, _ *http.Request) {
		running.Finish()
		writeJSON(w, running.Counts())
	})
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, running.Stop()) })
	return listen(ctx, address, mux)
}

// socketState is the response of a WebSocket client at /counts.
type socketState struct {
	Open    bool  `json:"open"`
	Answers int64 `json:"answers"`
}

// question is longer than a WebSocket ping, which does not count as work.
const question = "is anybody still there, at the other end of this socket?"

// keepSocket opens a WebSocket, sends messages at an interval, and never closes it. It
// serves its state at /counts.
func keepSocket(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("socket", flag.ExitOnError)
	address := flags.String("listen", ":8080", "address of the server for the state")
	url := flags.String("url", "", "ws://…")
	every := flags.Duration("every", time.Second, "time between two messages; 0: one message only")
	if err := flags.Parse(args); err != nil {
		return err
	}
	conn, err := dial(ctx, *url)
	if err != nil {
		return fmt.Errorf("opening %s: %w", *url, err)
	}
	var open atomic.Bool
	var answers atomic.Int64
	open.Store(true)
	go func() {
		defer open.Store(false)
		for {
			if err := conn.WriteMessage(websocket.TextMessage, []byte(question)); err != nil {
				return
			}
			if _, _, err := conn.ReadMessage(); err != nil {
				return
			}
			answers.Add(1)
			if *every == 0 {
				_, _, _ = conn.ReadMessage() // blocks until the connection is closed
				return
			}
			select {
			case <-time.After(*every):
			case <-ctx.Done():
				return
			}
		}
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, socketState{Open: open.Load(), Answers: answers.Load()})
	})
	return errors.Join(listen(ctx, *address, mux), conn.Close())
}

// dial opens a WebSocket. It retries for a minute, because a Service begins to work
// some time after its pods are ready.
func dial(ctx context.Context, url string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		conn, response, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
		if err == nil {
			return conn, response.Body.Close()
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}
