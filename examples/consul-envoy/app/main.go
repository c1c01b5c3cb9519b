// A slow app that registers itself in Consul, behind Envoy. It knows nothing about
// draining: SIGTERM ends it at once, even with requests in flight.
package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

func main() {
	log.Fatal(run())
}

func run() error {
	pod, ip, port := os.Getenv("POD_NAME"), os.Getenv("POD_IP"), os.Getenv("PORT")
	envoy, err := strconv.Atoi(os.Getenv("ENVOY_PORT"))
	if err != nil {
		return fmt.Errorf("ENVOY_PORT: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", ":"+port)
	if err != nil {
		return err
	}
	consul, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return err
	}
	err = consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "web-" + pod, Name: "web", Address: ip, Port: envoy,
		// Not through Envoy, where the checks would count as work.
		Check: &api.AgentServiceCheck{
			HTTP: "http://" + net.JoinHostPort(ip, port) + "/healthz", Interval: "1s", Timeout: "1s",
			// For pods that end without deregistering.
			DeregisterCriticalServiceAfter: "1m",
		},
	})
	if err != nil {
		return fmt.Errorf("registering in Consul: %w", err)
	}
	server := &http.Server{Handler: http.HandlerFunc(serve), ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(listener)
}

// serve takes 0.1 to 2 seconds.
func serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" {
		return
	}
	work := time.NewTimer(100*time.Millisecond + rand.N(1900*time.Millisecond)) //nolint:gosec // not for security
	defer work.Stop()
	select {
	case <-work.C:
		_, _ = fmt.Fprintln(w, "done")
	case <-r.Context().Done():
	}
}
