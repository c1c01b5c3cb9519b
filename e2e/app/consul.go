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

// consulPort is where the app that registers itself listens.
const consulPort = 8080

// inConsul is `serve`, whose flags come after --, and announces itself at a
// Consul agent as apps do: it registers when it works, reports that it is well
// every second, registers again if the agent no longer knows it, and at SIGTERM
// it deregisters before it closes its port.
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
	// What serve sees of SIGTERM comes when the instance is deregistered.
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

// podAddress returns the first of a pod's addresses that is of a family.
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

// instance is the app's own, in Consul.
type instance struct{ agent, service, id, address string }

func (i instance) check() string { return "alive:" + i.id }

// announce reports each second that the app is well, from when it listens, and
// registers where the agent does not know it.
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

// begin registers the app when it listens, and some time later where it is slow.
// It is not asked again: to Lastcall each connection is one more client.
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

// alive reports that the app is well.
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
			"DeregisterCriticalServiceAfter": "10m", // for pods that die without a word
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

// fetchJSON sends a body, if it is not nil, and reads the answer into `into`, if
// that is not nil.
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
