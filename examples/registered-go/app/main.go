// A slow app that knows nothing about Consul: it answers HTTP, and has a readiness
// endpoint. SIGTERM ends it at once, even with requests in flight.
package main

import (
	"cmp"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"time"
)

func main() {
	app := http.NewServeMux()
	app.HandleFunc("/", work)
	app.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Addr: cmp.Or(os.Getenv("ADDRESS"), ":8080"), Handler: app, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}

// work takes 0.1 to 2 seconds.
func work(w http.ResponseWriter, r *http.Request) {
	timer := time.NewTimer(100*time.Millisecond + rand.N(1900*time.Millisecond)) //nolint:gosec // not for security
	defer timer.Stop()
	select {
	case <-timer.C:
		_, _ = fmt.Fprintln(w, "done")
	case <-r.Context().Done():
	}
}
