package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// consulPort is the port of an app that registers itself.
const consulPort = 8080

// inConsul runs `serve`, with the flags after --, and registers with a Consul agent as
// apps do: it registers when it listens, reports a passing check every second,
// registers again if the agent no longer knows it, and at SIGTERM deregisters before
// it closes its port.
func inConsul(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("consul", flag.ExitOnError)
	agent := flags.String("agent", "", "http://HOST:8500")
	name := flags.String("name", "web", "the service")
	forgetful := flags.Bool("forgetful", false, "do not deregister at SIGTERM")
	after := flags.Duration("after", 0, "register that long after the app listens")
	family := flags.String("family", "", "register the pod's address of this family, IPv4 or IPv6; default: its first")
	if err := flags.Parse(args); err != nil {
		return err
	}
	address, err := podAddress(os.Getenv("POD_IPS"), *family)
	if err != nil {
		return err
	}
	i := instance{agent: *agent, service: *name, id: os.Getenv("POD_NAME"), address: address}
	living := ctx
	if slices.Contains(flags.Args(), "-deaf") {
		living = context.WithoutCancel(ctx) // SIGTERM changes nothing
	}
	announcing, stop := context.WithCancel(living)
	defer stop()
	go i.announce(announcing, *after)
	// serve is stopped only after the instance has been deregistered.
	serving, told := context.WithCancel(context.WithoutCancel(ctx))
	defer told()
	context.AfterFunc(living, func() {
		defer told()
		if !*forgetful {
			i.deregister(context.WithoutCancel(ctx))
		}
	})
	return serve(serving, flags.Args())
}

// podAddress returns the pod's first address of a family, or of any family if it is
// empty.
func podAddress(list, family string) (string, error) {
	for text := range strings.SplitSeq(list, ",") {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return "", fmt.Errorf("POD_IPS: %w", err)
		}
		if family == "" || address.Is6() == (family == "IPv6") {
			return text, nil
		}
	}
	return "", fmt.Errorf("POD_IPS=%s: the pod has no address of the family %s", list, family)
}

// instance is the app's instance in Consul.
type instance struct{ agent, service, id, address string }

func (i instance) check() string { return "alive:" + i.id }

// announce registers the app when it listens, and then reports a passing check each
// second. It registers the app again if the agent does not know it.
func (i instance) announce(ctx context.Context, after time.Duration) {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	step := func(ctx context.Context) error { return i.begin(ctx, after) }
	for {
		if err := step(ctx); err == nil {
			step = i.alive
		} else if ctx.Err() == nil {
			slog.Warn("telling Consul", "error", err)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// begin registers the app after it listens and the time after has passed. It checks the
// port only once, because Lastcall counts each connection as a client's.
func (i instance) begin(ctx context.Context, after time.Duration) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", consulPort))
	if err == nil {
		err = conn.Close()
	}
	if err != nil {
		return err
	}
	slow := time.NewTimer(after)
	defer slow.Stop()
	select {
	case <-slow.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return i.register(ctx)
}

// alive reports a passing check, or registers the app if the agent does not know it.
func (i instance) alive(ctx context.Context) error {
	err := i.put(ctx, "check/pass/"+url.PathEscape(i.check()), nil)
	if err != nil && strings.Contains(err.Error(), "404") {
		return i.register(ctx)
	}
	return err
}

func (i instance) register(ctx context.Context) error {
	return i.put(ctx, "service/register", map[string]any{
		"ID": i.id, "Name": i.service, "Address": i.address, "Port": consulPort,
		"Check": map[string]string{
			"CheckID": i.check(), "TTL": "20s", "Status": "passing",
			"DeregisterCriticalServiceAfter": "10m", // for pods that end without deregistering
		},
	})
}

func (i instance) deregister(ctx context.Context) {
	if err := i.put(ctx, "service/deregister/"+url.PathEscape(i.id), nil); err != nil {
		slog.Warn("telling Consul", "error", err)
	}
}

func (i instance) put(ctx context.Context, path string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return fetchJSON(ctx, http.MethodPut, i.agent+"/v1/agent/"+path, body, nil)
}

// fetchJSON sends body as JSON, if it is not nil, and decodes the response into `into`,
// if that is not nil.
func fetchJSON(ctx context.Context, method, address string, body, into any) error {
	var sent bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&sent).Encode(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, address, &sent)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	response, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, address, response.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(into)
}
