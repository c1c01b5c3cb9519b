package compare

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// instance is a pod's entry in Eureka. The benchmark maintains it as the Java
// client in the app would: it registers, renews, and cancels the instance on
// SIGTERM.
type instance struct {
	service string // the service URL
	app, id string
	address string
	http    *http.Client
}

func (i *instance) url() string { return i.service + "/apps/" + i.app + "/" + i.id }

func (i *instance) register(ctx context.Context) error {
	host, text, err := net.SplitHostPort(i.address)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	enabled := func(port int, enabled string) map[string]any { return map[string]any{"$": port, "@enabled": enabled} }
	body, err := json.Marshal(map[string]any{"instance": map[string]any{
		"instanceId": i.id, "hostName": host, "app": i.app, "ipAddr": host, "status": "UP", "vipAddress": i.app,
		"port": enabled(port, "true"), "securePort": enabled(443, "false"),
		"dataCenterInfo":     map[string]any{"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
		"leaseInfo":          map[string]any{"renewalIntervalInSecs": 30, "durationInSecs": 600},
		"lastDirtyTimestamp": strconv.FormatInt(time.Now().UnixMilli(), 10),
	}})
	if err != nil {
		return err
	}
	return send(ctx, i.http, http.MethodPost, i.service+"/apps/"+i.app, string(body), nil)
}

// renew sends heartbeats until ctx ends.
func (i *instance) renew(ctx context.Context) {
	for sleep(ctx, 10*time.Second) == nil {
		_ = call(ctx, i.http, http.MethodPut, i.url(), nil) // the next heartbeat makes up for an error
	}
}

// withdraw makes the registry call of a shell hook, which takes the instance out of
// service.
func (i *instance) withdraw(ctx context.Context) error {
	return call(ctx, i.http, http.MethodPut, i.url()+"/status?value=OUT_OF_SERVICE", nil)
}

func (i *instance) cancel(ctx context.Context) error {
	return call(ctx, i.http, http.MethodDelete, i.url(), nil)
}

// fetch returns the addresses at which the app is UP, as a client of Eureka does.
func fetch(ctx context.Context, client *http.Client, service, app string) (addresses []string, err error) {
	var answer struct {
		Application struct {
			Instance []struct {
				IPAddr, Status string
				Port           struct {
					Number int `json:"$"`
				}
			}
		}
	}
	err = call(ctx, client, http.MethodGet, service+"/apps/"+app, func(body io.Reader) error {
		return json.NewDecoder(body).Decode(&answer)
	})
	for _, i := range answer.Application.Instance {
		if i.Status == "UP" {
			addresses = append(addresses, net.JoinHostPort(i.IPAddr, fmt.Sprint(i.Port.Number)))
		}
	}
	return addresses, err
}
