// A slow app that registers itself in Consul. It knows nothing about draining:
// SIGTERM ends it at once, even with requests in flight.
package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/consul/api"
)

// The health endpoint has its own port: on the app's port, Consul's checks would
// count as clients that still arrive. (The kubelet's probes do not.)
const port, healthPort = 8080, "8081"

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx := context.Background()
	pod, ip := os.Getenv("POD_NAME"), os.Getenv("POD_IP")
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() {
		server := &http.Server{Handler: http.HandlerFunc(serve), ReadHeaderTimeout: 10 * time.Second}
		failed <- server.Serve(listener)
	}()
	if err := register(pod, ip); err != nil {
		return err
	}
	// Ready once clients can find it.
	go func() {
		health := &http.Server{
			Addr: ":" + healthPort, ReadHeaderTimeout: 10 * time.Second,
			Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		}
		failed <- health.ListenAndServe()
	}()
	return <-failed
}

// register retries for half a minute, because Consul may be starting too.
func register(pod, ip string) error {
	consul, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	for {
		err := consul.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
			ID: "web-" + pod, Name: "web", Address: ip, Port: port,
			Check: &api.AgentServiceCheck{
				HTTP: "http://" + net.JoinHostPort(ip, healthPort), Interval: "1s", Timeout: "1s",
				// For pods that end without deregistering.
				DeregisterCriticalServiceAfter: "1m",
			},
		}, api.ServiceRegisterOpts{}.WithContext(ctx))
		if err == nil {
			return nil
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return fmt.Errorf("registering in Consul: %w", err)
		}
	}
}

// serve takes 0.1 to 2 seconds.
func serve(w http.ResponseWriter, r *http.Request) {
	work := time.NewTimer(100*time.Millisecond + rand.N(1900*time.Millisecond)) //nolint:gosec // not for security
	defer work.Stop()
	select {
	case <-work.C:
		_, _ = fmt.Fprintln(w, "done")
	case <-r.Context().Done():
	}
}
