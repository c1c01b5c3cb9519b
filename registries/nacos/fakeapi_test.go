package nacos

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// changeLocked handles the calls about instances of one version of the API: v3
// as administrators use it, v1 and v2 as everybody does.
func (f *fake) changeLocked(r *http.Request, v int, path string) reply {
	switch {
	case path == "/instance/list" && r.Method == http.MethodGet:
		return f.listLocked(r, v)
	case path == "/instance/beat" && r.Method == http.MethodPut && v < 3:
		return f.beatLocked(r)
	case path == "/client/service/publisher/list" && v > 1:
		return f.publishersLocked(r, v)
	case path == "/instance/metadata/batch" && !f.noBatch:
		return f.metadataLocked(r, v)
	case path == "/instance/partial" && r.Method == http.MethodPut && v == 3,
		path == "/instance" && r.Method == http.MethodPatch && v < 3:
		return f.partialLocked(r, v)
	case path != "/instance":
		return noPath(path)
	}
	cluster := "clusterName"
	if v == 1 && r.Method == http.MethodGet {
		cluster = "cluster"
	}
	named, wrong := f.named(r, v, cluster)
	if wrong != "" {
		return f.fail(v, 400, 10000, wrong)
	}
	switch r.Method {
	case http.MethodGet:
		i := f.instances[named.key()]
		if i == nil {
			return f.noInstance(v)
		}
		shown := vo(f.shownLocked(i), v == 3)
		if v == 1 {
			return reply{200, shown}
		}
		return good(shown)
	case http.MethodPost:
		named.owner = addressOwner(named)
		f.putLocked(named)
	case http.MethodPut:
		if !f.services[named.serviceKey()] {
			return f.fail(v, 400, instanceError, "service not found")
		}
		f.writes = append(f.writes, "replace")
		if f.major == 1 {
			named.owner = addressOwner(named)
			f.putLocked(named)
			break
		}
		f.operator[named.key()] = &overlay{named.enabled, named.weight, named.metadata}
	case http.MethodDelete:
		f.writes = append(f.writes, "delete")
		f.removeLocked(named)
	default:
		return reply{405, "Method Not Allowed"}
	}
	return f.done(v)
}

func (f *fake) done(v int) reply {
	if v == 1 {
		return reply{200, "ok"}
	}
	return good("ok")
}

func (f *fake) fail(v, status, code int, text string) reply {
	if v == 1 {
		return reply{status, "caused: " + text + ";"}
	}
	return bad(status, code, text)
}

func (f *fake) noInstance(v int) reply {
	if f.major == 1 {
		return reply{500, "caused: no matched ip found!;"}
	}
	return f.fail(v, 404, resourceNotFound, "no matched ip found!")
}

func (f *fake) listLocked(r *http.Request, v int) reply {
	named, wrong := f.named(r, v, "clusterName")
	if wrong != "" {
		return f.fail(v, 400, 10000, wrong)
	}
	if v == 3 {
		all := f.allLocked(named.serviceKey())
		if len(all) == 0 {
			return bad(404, resourceNotFound, "cluster DEFAULT is not found")
		}
		return good(vos(all))
	}
	told, protected := f.toldLocked(named.serviceKey(), r.Form.Get("healthyOnly") == "true")
	info := map[string]any{"name": named.group + "@@" + named.service, "hosts": vos(told), "reachProtectionThreshold": protected, "cacheMillis": 10000}
	if v == 1 {
		return reply{200, info}
	}
	return good(info)
}

// clientLocked handles the API of v3 for clients without gRPC.
func (f *fake) clientLocked(r *http.Request, path string) reply {
	named, wrong := f.named(r, 3, "clusterName")
	if wrong != "" {
		return bad(400, 10000, wrong)
	}
	switch {
	case path == "/instance/list" && r.Method == http.MethodGet:
		told, _ := f.toldLocked(named.serviceKey(), false)
		return good(vos(told))
	case r.Method == http.MethodPost && r.Form.Get("heartBeat") == "true":
		i := f.instances[named.key()]
		if i == nil || i.owner != addressOwner(named) {
			return reply{200, map[string]any{"code": instanceNotFound, "message": "instance not found", "data": nil}}
		}
		i.beat, i.healthy = f.nowLocked(), true
	case r.Method == http.MethodPost:
		named.owner = addressOwner(named)
		f.putLocked(named)
	case r.Method == http.MethodDelete:
		f.writes = append(f.writes, "delete")
		f.removeLocked(named)
	}
	return good("ok")
}

// partialLocked changes only the fields that a call names.
func (f *fake) partialLocked(r *http.Request, v int) reply {
	cluster, names := "clusterName", v
	if v == 2 {
		names = 1 // the PATCH of v2 has no parameter for the group
		for _, required := range []string{"ip", "port", "weight", "enabled", "metadata"} {
			if !r.Form.Has(required) {
				return bad(400, 10000, "Required parameter '"+required+"' is not present")
			}
		}
	}
	if v < 3 {
		cluster = "cluster"
	}
	named, wrong := f.named(r, names, cluster)
	if wrong != "" {
		return f.fail(v, 400, 10000, wrong)
	}
	i := f.instances[named.key()]
	if i == nil {
		return f.noInstance(v)
	}
	var p patch
	if r.Form.Get("enabled") != "" {
		p.enabled = &named.enabled
	}
	if r.Form.Get("weight") != "" {
		p.weight = &named.weight
	}
	if r.Form.Get("metadata") != "" {
		p.metadata = named.metadata
	}
	f.writes = append(f.writes, "enabled="+strconv.FormatBool(named.enabled))
	f.patchLocked(i, p)
	if v == 3 {
		return good("ok")
	}
	return reply{200, "ok"}
}

// metadataLocked adds or removes metadata keys.
func (f *fake) metadataLocked(r *http.Request, v int) reply {
	named, wrong := f.named(r, v, "clusterName")
	if wrong != "" {
		return f.fail(v, 400, 10000, wrong)
	}
	var instances []struct {
		IP          string `json:"ip"`
		Port        int    `json:"port"`
		ClusterName string `json:"clusterName"`
	}
	if json.Unmarshal([]byte(r.Form.Get("instances")), &instances) != nil || len(instances) != 1 {
		return f.fail(v, 400, 10000, "instances is illegal")
	}
	named.ip, named.port, named.cluster = instances[0].IP, instances[0].Port, instances[0].ClusterName
	updated := []string{}
	if i := f.instances[named.key()]; i != nil {
		f.writes = append(f.writes, "metadata")
		f.batchLocked(i, named.metadata, r.Method == http.MethodDelete)
		updated = append(updated, named.ip)
	}
	if v == 1 {
		return reply{200, map[string]any{"updated": updated}}
	}
	return good(map[string]any{"updated": updated})
}

// publishersLocked returns the clients that have registered an instance. In 2.x
// only administrators may call it.
func (f *fake) publishersLocked(r *http.Request, v int) reply {
	named, wrong := f.named(r, v, "clusterName")
	switch {
	case wrong != "":
		return bad(400, 10000, wrong)
	case v == 2 && f.auth:
		return bad(403, 10001, "authorization failed!")
	}
	all := []any{}
	for _, i := range f.instances {
		if i.serviceKey() == named.serviceKey() && i.ip == named.ip && i.port == named.port {
			all = append(all, map[string]any{"clientId": i.owner, "ip": i.ip, "port": i.port})
		}
	}
	return good(all)
}

// beatLocked handles the heartbeat of 1.x clients. A heartbeat with the whole
// instance registers it again if it was deleted.
func (f *fake) beatLocked(r *http.Request) reply {
	named, wrong := f.named(r, 1, "clusterName")
	if wrong != "" {
		return reply{400, "caused: " + wrong}
	}
	var beat struct {
		Metadata map[string]string `json:"metadata"`
		Weight   float64           `json:"weight"`
	}
	full := json.Unmarshal([]byte(r.Form.Get("beat")), &beat) == nil
	i := f.instances[named.key()]
	switch {
	case i == nil && !full:
		return reply{200, map[string]any{"code": 20404, "clientBeatInterval": 5000}}
	case i == nil:
		named.owner, named.weight, named.metadata = addressOwner(named), beat.Weight, beat.Metadata
		f.putLocked(named)
	default:
		i.beat, i.healthy = f.nowLocked(), true
	}
	return reply{200, map[string]any{"code": 10200, "clientBeatInterval": 5000, "lightBeatEnabled": true}}
}
