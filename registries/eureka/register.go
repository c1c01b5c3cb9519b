package eureka

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"lastcall/drain"
)

// Lease settings of the sidecar's registrations: Eureka's own defaults
// (LeaseInfo in eureka-client). A failed renewal is retried several times
// before the lease ends.
const (
	renewEvery = 30 * time.Second
	leaseFor   = 90 * time.Second
)

// registrant is what is needed to register the app, if the sidecar does so.
type registrant struct {
	name    name
	ip      netip.Addr
	port    int
	service drain.Service
	now     func() time.Time

	mu sync.Mutex // guards what follows
	// status is what this process last registered or found; empty if not known.
	status string
	at     int       // index of the peer that answered last
	saidAt time.Time // when a registration or a renewal was last sent
	dirty  int64     // the time stamp of the last registration; each one must be larger
}

// newRegistrant returns a registrant that names the instance as Spring's client
// does. A pod's name is as unique and as stable as an id must be. A
// StatefulSet's next pod has the same name and replaces the instance.
func newRegistrant(cfg Config, pod drain.Pod) (*registrant, error) {
	ips := pod.Addresses()
	if len(ips) == 0 || pod.AppPort == 0 {
		return nil, fmt.Errorf("LASTCALL_REGISTER=true: set LASTCALL_APP_PORT and LASTCALL_POD_IP, the address that is registered in Eureka")
	}
	if cfg.App != "" && !strings.EqualFold(cfg.App, pod.Service.Name) {
		return nil, fmt.Errorf("LASTCALL_EUREKA_APP=%q and LASTCALL_SERVICE_NAME=%q: must be the same where LASTCALL_REGISTER=true; set only LASTCALL_SERVICE_NAME", cfg.App, pod.Service.Name)
	}
	id := cfg.InstanceID
	if id == "" {
		host := pod.Name
		if host == "" {
			host = ips[0].String()
		}
		id = host + ":" + pod.Service.Name + ":" + strconv.Itoa(pod.AppPort)
	}
	if strings.ContainsAny(cfg.InstanceID, `/\`) {
		return nil, fmt.Errorf("LASTCALL_EUREKA_INSTANCE_ID=%q: must hold no slash or backslash, which Eureka's server refuses", id)
	}
	return &registrant{
		name: name{strings.ToUpper(pod.Service.Name), id},
		ip:   ips[0], port: pod.AppPort, service: *pod.Service, now: time.Now,
	}, nil
}

// RegisterEvery returns the interval at which the lease is renewed.
func (r *Registry) RegisterEvery() time.Duration { return renewEvery }

// Register registers the app as UP. If the app is not ready and is already
// registered, Register registers it as DOWN: servers accept DOWN from a client,
// but not OUT_OF_SERVICE.
//
// A registration is sent to every server. A renewal is sent to one server,
// which replicates it. An override that the registration has inherited, for
// example from a StatefulSet's earlier pod, is removed. One that was set later
// was set by somebody on purpose; it stays until the app is registered again.
func (r *Registry) Register(ctx context.Context, ready bool) error {
	g := r.registrant
	status, known := down, g.known()
	if ready {
		status = up
	}
	if known == "" || !ready && known != down { // an app that is not ready is not registered
		var err error
		if known, err = r.found(ctx); err != nil {
			return err
		}
	}
	if known == status {
		if err := r.renew(ctx, status); !isNotFound(err) {
			return err
		}
		known = absent // the server was restarted, or the lease has ended
	}
	if known == absent && !ready {
		g.learn("")
		return nil
	}
	return r.announce(ctx, status)
}

const (
	// absent is the status of an instance that no server holds.
	absent = "absent"
	// halfway is the status of an instance whose registration was begun but has
	// not succeeded.
	halfway = "registered half-way"
)

// found returns what the servers hold of the pod's instance when the process
// starts: UP or DOWN if an earlier process of this pod has registered that,
// absent, or a status that must be registered again.
func (r *Registry) found(ctx context.Context) (status string, err error) {
	g := r.registrant
	status = absent
	err = g.atOne(ctx, r.peers, func(p *peer) error {
		i, err := p.instance(ctx, g.name)
		switch {
		case isNotFound(err):
			return p.check(ctx)
		case err != nil:
			return err
		case !i.isAt([]netip.Addr{g.ip}, g.port):
			status = "of an earlier pod"
		case i.Status == down && !i.overridden():
			status = down
		default:
			status = up // or withdrawn since; then it stays withdrawn
		}
		return nil
	})
	if err == nil && (status == up || status == down) {
		g.learn(status)
	}
	return status, err
}

// announce registers the instance with every server, and removes an override
// that it inherits.
func (r *Registry) announce(ctx context.Context, status string) error {
	g := r.registrant
	body, err := g.body(status)
	if err != nil {
		return err
	}
	g.learn(halfway)
	defer g.said()
	if err := r.atPeers(ctx, func(ctx context.Context, p *peer) error { return p.register(ctx, g.name.app, body) }); err != nil {
		return err
	}
	r.locate()
	if err := r.clearInherited(ctx); err != nil {
		return err
	}
	g.learn(status)
	return nil
}

// clearInherited removes an inherited override: servers store overrides by the
// instance's id alone.
func (r *Registry) clearInherited(ctx context.Context) error {
	r.mu.Lock()
	withdrawn := r.withdrawn
	r.mu.Unlock()
	if withdrawn {
		return nil // Restore removes it
	}
	g := r.registrant
	return r.atPeers(ctx, func(ctx context.Context, p *peer) error {
		i, err := p.instance(ctx, g.name)
		switch {
		case err != nil:
			return passOver404(err)
		case !i.overridden():
			return nil
		}
		return passOver404(r.removeOverride(ctx, p, g.name, up))
	})
}

func (r *Registry) renew(ctx context.Context, status string) error {
	g := r.registrant
	defer g.said()
	return g.atOne(ctx, r.peers, func(p *peer) error { return p.heartbeat(ctx, g.name, status) })
}

// ownWord returns the status that the sidecar itself has registered for the app
// behind an override: UP, or empty if that is not so or not known.
func (r *Registry) ownWord(i instance) string {
	if r.registrant == nil {
		return r.ownStatus(i)
	}
	if r.registrant.known() == up {
		return up
	}
	return ""
}

func (g *registrant) known() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status
}

func (g *registrant) learn(status string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.status = status
}

// said records that a registration or a renewal was sent, whatever its result.
func (g *registrant) said() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.saidAt = time.Now()
}

// lastSaid returns when this process last sent a registration or a renewal.
func (g *registrant) lastSaid() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.saidAt
}

// atOne calls f for one peer after the other until one answers, beginning with
// the peer that answered last. "Not found" counts as an answer.
func (g *registrant) atOne(ctx context.Context, peers []*peer, f func(*peer) error) error {
	g.mu.Lock()
	first := g.at
	g.mu.Unlock()
	var failed error
	for n := range peers {
		i := (first + n) % len(peers)
		err := f(peers[i])
		if err == nil || isNotFound(err) {
			g.mu.Lock()
			g.at = i
			g.mu.Unlock()
			return err
		}
		if failed == nil || isDown(failed) {
			failed = fmt.Errorf("%s: %w", peers[i].url, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

// body returns the instance as JSON for a registration (InstanceInfo in
// eureka-client).
func (g *registrant) body(status string) ([]byte, error) {
	g.mu.Lock()
	g.dirty = max(g.now().UnixMilli(), g.dirty+1)
	dirty := strconv.FormatInt(g.dirty, 10)
	g.mu.Unlock()
	address := netip.AddrPortFrom(g.ip, uint16(g.port)).String() //nolint:gosec // a port
	metadata := g.service.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	type object = map[string]any
	return json.Marshal(object{"instance": object{
		"instanceId": g.name.id, "hostName": g.ip.String(), "app": g.name.app, "ipAddr": g.ip.String(),
		"vipAddress": g.service.Name, "secureVipAddress": g.service.Name,
		"status": status, "overriddenStatus": "UNKNOWN",
		"port":       object{"$": g.port, "@enabled": "true"},
		"securePort": object{"$": 443, "@enabled": "false"},
		"countryId":  1,
		"dataCenterInfo": object{
			"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn",
		},
		"leaseInfo": object{
			"renewalIntervalInSecs": int(renewEvery.Seconds()), "durationInSecs": int(leaseFor.Seconds()),
		},
		"metadata":             metadata,
		"homePageUrl":          "http://" + address + "/",
		"lastUpdatedTimestamp": dirty, "lastDirtyTimestamp": dirty,
	}})
}

// register registers an instance. It replaces one that is already registered.
func (p *peer) register(ctx context.Context, app string, body []byte) error {
	return p.send(ctx, http.MethodPost, "apps/"+url.PathEscape(app), body)
}

// heartbeat renews the lease of an instance.
func (p *peer) heartbeat(ctx context.Context, n name, status string) error {
	return p.call(ctx, http.MethodPut, n.path()+"?status="+status, asJSON, anything)
}
