package nacos

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	fakeUser     = "lastcall"
	fakePassword = "pass/word&1"
)

// reply is the answer to a call.
type reply struct {
	code int // the HTTP status
	body any // a string is sent as it is
}

// good returns a successful answer in the format of v2 and v3.
func good(data any) reply {
	return reply{200, map[string]any{"code": 0, "message": "success", "data": data}}
}

func bad(status, code int, text string) reply {
	return reply{status, map[string]any{"code": code, "message": text, "data": nil}}
}

// noPath returns Spring's answer for a path that it does not have.
func noPath(path string) reply {
	return reply{404, map[string]any{"timestamp": "2026-01-01T00:00:00.000+00:00", "status": 404, "error": "Not Found", "path": path}}
}

func gone() reply {
	return bad(410, 10001, "Current API will be deprecated, please use new API, and set nacos.core.api.compatibility.admin.enabled to use old ones")
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	f.passLocked()
	got := f.answerLocked(r)
	f.mu.Unlock()
	if text, ok := got.body.(string); ok {
		w.WriteHeader(got.code)
		_, _ = w.Write([]byte(text))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(got.code)
	if err := json.NewEncoder(w).Encode(got.body); err != nil {
		panic(err)
	}
}

func (f *fake) answerLocked(r *http.Request) reply {
	path, ok := strings.CutPrefix(r.URL.Path, "/nacos")
	if !ok {
		return noPath(r.URL.Path)
	}
	if r.Method == http.MethodPatch {
		r.Form = r.URL.Query() // the body of a PATCH is not read
	}
	if strings.Contains(path, "/auth/") {
		return f.loginLocked(r, path)
	}
	if f.auth && !f.allowedLocked(r) {
		if f.major == 1 {
			return reply{403, `{"timestamp":"","status":403,"error":"Forbidden","message":"user not found!"}`}
		}
		return bad(403, 10001, "Code: 401, Message: user not found!.")
	}
	rest, isV3Admin := strings.CutPrefix(path, "/v3/admin/ns")
	if isV3Admin && f.major == 3 {
		return f.changeLocked(r, 3, rest)
	}
	if path == "/v3/client/ns/instance" || path == "/v3/client/ns/instance/list" {
		if f.major == 3 {
			return f.clientLocked(r, strings.TrimPrefix(path, "/v3/client/ns"))
		}
		return noPath(path)
	}
	if rest, ok := strings.CutPrefix(path, "/v2/ns"); ok && f.major >= 2 && !f.noV2 {
		if f.major == 3 {
			return gone()
		}
		return f.changeLocked(r, 2, rest)
	}
	if rest, ok := strings.CutPrefix(path, "/v1/ns"); ok {
		kept := rest == "/instance" && r.Method == http.MethodDelete || rest == "/instance/list" || rest == "/instance/beat" || rest == "/instance" && r.Method == http.MethodPost
		if f.major == 3 && !kept {
			return gone()
		}
		return f.changeLocked(r, 1, rest)
	}
	return noPath(path)
}

func (f *fake) loginLocked(r *http.Request, path string) reply {
	known := path == "/v1/auth/login" || path == "/v1/auth/users/login" || path == "/v3/auth/user/login" && f.major == 3
	if !known || r.Method != http.MethodPost {
		return noPath(path)
	}
	f.logins++
	if f.auth && (r.FormValue("username") != fakeUser || r.FormValue("password") != fakePassword) {
		return reply{403, "unknown user!"}
	}
	t := fmt.Sprintf("token-%d", f.logins)
	f.tokens[t] = f.nowLocked().Add(time.Duration(f.ttl) * time.Second)
	return reply{200, map[string]any{"accessToken": t, "tokenTtl": f.ttl, "globalAdmin": false, "username": fakeUser}}
}

func (f *fake) allowedLocked(r *http.Request) bool {
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	t := cmp.Or(bearer, r.FormValue("accessToken"))
	if f.major == 3 {
		t = cmp.Or(t, r.Header.Get("accessToken"))
	}
	end, ok := f.tokens[t]
	return ok && f.nowLocked().Before(end)
}

// named returns the instance that a call names, by the parameters that this
// version of the API reads.
func (f *fake) named(r *http.Request, v int, cluster string) (*registration, string) {
	form := func(name, otherwise string) string { return cmp.Or(r.Form.Get(name), otherwise) }
	i := &registration{
		namespace: form("namespaceId", "public"), group: form("groupName", "DEFAULT_GROUP"), service: r.Form.Get("serviceName"),
		cluster: form(cluster, "DEFAULT"), ip: r.Form.Get("ip"),
		weight: 1, enabled: form("enabled", "true") == "true", ephemeral: form("ephemeral", "true") == "true",
	}
	i.port, _ = strconv.Atoi(r.Form.Get("port"))
	if w := r.Form.Get("weight"); w != "" {
		i.weight, _ = strconv.ParseFloat(w, 64)
	}
	if m := r.Form.Get("metadata"); m != "" {
		if json.Unmarshal([]byte(m), &i.metadata) != nil {
			return i, "metadata is no JSON"
		}
	}
	group, name, grouped := strings.Cut(i.service, "@@")
	switch {
	case i.service == "":
		return i, "serviceName is missing"
	case v == 1 && !grouped:
		return i, "Param 'serviceName' is illegal, it should be format as 'groupName@@serviceName'"
	case v > 1 && grouped:
		return i, "Param 'serviceName' is illegal: illegal characters should not appear"
	case grouped:
		i.group, i.service = group, name
	}
	return i, ""
}

// vo returns an instance as answers contain it.
func vo(i registration, full bool) map[string]any {
	m := map[string]any{
		"ip": i.ip, "port": i.port, "clusterName": i.cluster, "weight": i.weight, "healthy": i.healthy,
		"metadata": i.metadata, "instanceId": fmt.Sprintf("%s#%d#%s#%s@@%s", i.ip, i.port, i.cluster, i.group, i.service),
	}
	if full {
		m["enabled"], m["ephemeral"], m["serviceName"] = i.enabled, i.ephemeral, i.group+"@@"+i.service
	}
	return m
}

func vos(all []registration) []any {
	out := []any{}
	for _, i := range all {
		out = append(out, vo(i, true))
	}
	return out
}
