package check

import (
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"lastcall/drain"
	"lastcall/internal/settings"
	"lastcall/registries/consul"
	"lastcall/registries/eureka"
	"lastcall/registries/nacos"
	"lastcall/registries/steps"
)

func labelSet(l map[string]string) labels.Set { return labels.Set(l) }

// environment holds the sidecar's variables as far as they are known.
type environment struct {
	values map[string]string
	hidden map[string]bool // set from a ConfigMap or Secret that is not among the objects
	// complete reports whether no other variable can be set: all ConfigMaps and
	// Secrets in envFrom are among the objects.
	complete bool
}

// environment reads the variables of c as the kubelet would, from the ConfigMaps
// and Secrets among the objects.
func (in *input) environment(namespace string, c *corev1.Container) environment {
	e := environment{values: map[string]string{}, hidden: map[string]bool{}, complete: true}
	for _, from := range c.EnvFrom {
		var data map[string]string
		found := false
		switch {
		case from.ConfigMapRef != nil:
			data, found = in.configMaps[namespace+"/"+from.ConfigMapRef.Name]
		case from.SecretRef != nil:
			data, found = in.secrets[namespace+"/"+from.SecretRef.Name]
		}
		e.complete = e.complete && found
		for name, value := range data {
			e.values[from.Prefix+name] = value
		}
	}
	for _, v := range c.Env {
		delete(e.values, v.Name)
		if v.ValueFrom == nil {
			e.values[v.Name] = v.Value
			continue
		}
		value, found := "", false
		if ref := v.ValueFrom.ConfigMapKeyRef; ref != nil {
			value, found = in.configMaps[namespace+"/"+ref.Name][ref.Key]
		}
		if ref := v.ValueFrom.SecretKeyRef; ref != nil {
			value, found = in.secrets[namespace+"/"+ref.Name][ref.Key]
		}
		if e.hidden[v.Name] = !found; found {
			e.values[v.Name] = value
		}
	}
	return e
}

// known reports whether the value of name is known, or name is known to be unset.
func (e environment) known(name string) bool {
	_, set := e.values[name]
	return set || e.complete && !e.hidden[name]
}

// duration returns the value of name, or otherwise if name has no valid duration.
func (e environment) duration(name string, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(e.values[name]); err == nil {
		return d
	}
	return otherwise
}

// port returns the port of LASTCALL_LISTEN, or the default, 8099.
func (e environment) port() int32 {
	value := e.values["LASTCALL_LISTEN"]
	if n, err := strconv.ParseInt(value[strings.LastIndex(value, ":")+1:], 10, 32); err == nil {
		return int32(n)
	}
	return 8099
}

// list returns the entries of a comma-separated variable.
func (e environment) list(name string) []string {
	var all []string
	for entry := range strings.SplitSeq(e.values[name], ",") {
		if entry = strings.TrimSpace(entry); entry != "" {
			all = append(all, entry)
		}
	}
	return all
}

// Defaults of the sidecar's own variables. A test compares them with README.md.
const (
	defaultReserve   = 5 * time.Second
	defaultEndpoints = 3 * time.Second
	defaultQuiet     = time.Second
)

// drain returns the configuration from which the sidecar computes its budget.
func (e environment) drain(grace time.Duration) drain.Config {
	c := drain.Config{
		GracePeriod:   grace,
		Reserve:       e.duration("LASTCALL_RESERVE", defaultReserve),
		EndpointsWait: e.duration("LASTCALL_ENDPOINTS_WAIT", defaultEndpoints),
		Quiet:         e.duration("LASTCALL_QUIET", defaultQuiet),
	}
	refresh := refreshes()
	for _, name := range e.list("LASTCALL_REGISTRIES") {
		variable := "LASTCALL_" + strings.ToUpper(name) + "_CLIENT_REFRESH"
		r := drain.NamedRegistry{Name: name, ClientRefresh: e.duration(variable, refresh[variable])}
		if name == "eureka" {
			r.ServerCache = eureka.ServerCache
		}
		c.Registries = append(c.Registries, r)
	}
	return c
}

// refreshes returns the default of every registry's CLIENT_REFRESH variable, as
// declared by the registry's package.
func refreshes() map[string]time.Duration {
	specs := []any{&eureka.Config{}, &consul.Config{}, &nacos.Config{}, &steps.Config{}}
	for _, preset := range steps.Presets(func(string) bool { return true }) {
		specs = append(specs, preset.Settings)
	}
	all := map[string]time.Duration{}
	for _, v := range settings.Variables(specs...) {
		if d, err := time.ParseDuration(v.Default); err == nil && strings.HasSuffix(v.Name, "_CLIENT_REFRESH") {
			all[v.Name] = d
		}
	}
	return all
}
