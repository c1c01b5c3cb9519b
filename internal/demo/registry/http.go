package registry

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// maxRegistration is the maximum size of a registration, in bytes.
const maxRegistration = 64 << 10

// Handler serves the protocol under /eureka, the path of the service URL.
func (r *Registry) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /eureka/apps", r.clientAnswer)
	mux.HandleFunc("GET /eureka/apps/{$}", r.clientAnswer)
	mux.HandleFunc("GET /eureka/apps/{app}", r.clientAnswer) // and apps/delta
	mux.HandleFunc("GET /eureka/apps/{app}/{id}", r.getInstance)
	mux.HandleFunc("GET /eureka/instances/{id}", r.getInstance)
	mux.HandleFunc("POST /eureka/apps/{app}", r.postInstance)
	mux.HandleFunc("PUT /eureka/apps/{app}/{id}", func(w http.ResponseWriter, q *http.Request) {
		dirty, _ := strconv.ParseInt(q.FormValue("lastDirtyTimestamp"), 10, 64) // 0 if it is missing
		found(w, r.renew(q.PathValue("app"), q.PathValue("id"), Millis(dirty)))
	})
	mux.HandleFunc("PUT /eureka/apps/{app}/{id}/status", func(w http.ResponseWriter, q *http.Request) {
		if status, ok := statusOf(w, q, ""); ok {
			found(w, r.override(q.PathValue("app"), q.PathValue("id"), status))
		}
	})
	mux.HandleFunc("DELETE /eureka/apps/{app}/{id}/status", func(w http.ResponseWriter, q *http.Request) {
		if status, ok := statusOf(w, q, Unknown); ok {
			found(w, r.removeOverride(q.PathValue("app"), q.PathValue("id"), status))
		}
	})
	mux.HandleFunc("DELETE /eureka/apps/{app}/{id}", func(w http.ResponseWriter, q *http.Request) {
		found(w, r.cancel(q.PathValue("app"), q.PathValue("id")))
	})
	return mux
}

func found(w http.ResponseWriter, ok bool) {
	if !ok {
		w.WriteHeader(http.StatusNotFound)
	}
}

// statusOf returns the status in a request.
func statusOf(w http.ResponseWriter, q *http.Request, unset string) (string, bool) {
	status := q.FormValue("value")
	if status == "" {
		status = unset
	}
	if !slices.Contains([]string{Up, Down, Starting, OutOfService, Unknown}, status) {
		http.Error(w, fmt.Sprintf("%.40q is not a status", status), http.StatusBadRequest)
		return "", false
	}
	return status, true
}

// postInstance handles a registration in JSON, the default format of clients.
func (r *Registry) postInstance(w http.ResponseWriter, q *http.Request) {
	var body struct {
		Instance Instance `json:"instance"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, q.Body, maxRegistration)).Decode(&body); err != nil {
		http.Error(w, "a registration must be JSON: "+err.Error(), http.StatusBadRequest)
		return
	}
	err := body.Instance.check()
	if err == nil && !strings.EqualFold(body.Instance.App, q.PathValue("app")) {
		err = fmt.Errorf("the application is %.80q in the body, and %.80q in the path", body.Instance.App, q.PathValue("app"))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !r.register(&body.Instance) {
		http.Error(w, fmt.Sprintf("this server accepts at most %d instances", maxInstances), http.StatusInsufficientStorage)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// getInstance answers with the current instance, not from the cache.
func (r *Registry) getInstance(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	i := r.find(q.PathValue("app"), q.PathValue("id"))
	if q.PathValue("app") == "" {
		for _, instances := range r.apps {
			if one := instances[q.PathValue("id")]; one != nil {
				i = one
			}
		}
	}
	var body []byte
	if i != nil {
		body = encode(wantsXML(q), "instance", *i)
	}
	r.mu.Unlock()
	write(w, q, body)
}

// clientAnswer answers from the cache, as clients read it.
func (r *Registry) clientAnswer(w http.ResponseWriter, q *http.Request) {
	path := "apps"
	if app := q.PathValue("app"); app == "delta" {
		path = "apps/delta"
	} else if app != "" {
		path = "apps/" + strings.ToUpper(app)
	}
	write(w, q, r.cache.get(question{path, wantsXML(q)}))
}

// wantsXML reports whether to answer in XML, the default unless JSON is requested.
func wantsXML(q *http.Request) bool { return !strings.Contains(q.Header.Get("Accept"), "json") }

func write(w http.ResponseWriter, q *http.Request, body []byte) {
	if body == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if wantsXML(q) {
		w.Header().Set("Content-Type", "application/xml")
	}
	_, _ = w.Write(body) // the client may be gone
}

// application and applications are the lists that clients read.
type application struct {
	XMLName   xml.Name   `json:"-" xml:"application"`
	Name      string     `json:"name" xml:"name"`
	Instances []Instance `json:"instance" xml:"instance"`
}

type applications struct {
	XMLName xml.Name      `json:"-" xml:"applications"`
	Version string        `json:"versions__delta" xml:"versions__delta"`
	Hash    string        `json:"apps__hashcode" xml:"apps__hashcode"`
	Apps    []application `json:"application" xml:"application"`
}

// answer creates the answer to q, or nil if the application is unknown.
func (r *Registry) answer(q question) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch q.path {
	case "apps":
		all := applications{Version: "1", Hash: r.hash(), Apps: []application{}}
		for name := range r.apps {
			all.Apps = append(all.Apps, r.application(name))
		}
		slices.SortFunc(all.Apps, func(a, b application) int { return strings.Compare(a.Name, b.Name) })
		return encode(q.xml, "applications", all)
	case "apps/delta":
		all := applications{Version: strconv.Itoa(r.version), Hash: r.hash(), Apps: []application{}}
		for i := range r.changes {
			c := &r.changes[i]
			n := slices.IndexFunc(all.Apps, func(a application) bool { return a.Name == c.instance.App })
			if n < 0 {
				n = len(all.Apps)
				all.Apps = append(all.Apps, application{Name: c.instance.App})
			}
			all.Apps[n].Instances = append(all.Apps[n].Instances, c.instance)
		}
		return encode(q.xml, "applications", all)
	}
	name := strings.TrimPrefix(q.path, "apps/")
	if r.apps[name] == nil {
		return nil
	}
	return encode(q.xml, "application", r.application(name))
}

func (r *Registry) application(name string) application {
	a := application{Name: name}
	for _, i := range r.apps[name] {
		a.Instances = append(a.Instances, *i)
	}
	slices.SortFunc(a.Instances, func(a, b Instance) int { return strings.Compare(a.id(), b.id()) })
	return a
}

// hash returns the number of instances by status, such as "UP_3_". A client that
// reads apps/delta compares it, to find out whether it has missed a change.
func (r *Registry) hash() string {
	var all []string
	for _, instances := range r.apps {
		for _, i := range instances {
			all = append(all, i.Status)
		}
	}
	slices.Sort(all)
	var hash strings.Builder
	for len(all) > 0 {
		n := 0
		for n < len(all) && all[n] == all[0] {
			n++
		}
		fmt.Fprintf(&hash, "%s_%d_", all[0], n)
		all = all[n:]
	}
	return hash.String()
}

// encode encodes a value as JSON, in the form {root: value}, or as XML, where the
// value has its own root.
func encode(asXML bool, root string, value any) []byte {
	var body []byte
	var err error
	if asXML {
		body, err = xml.Marshal(value)
	} else {
		body, err = json.Marshal(map[string]any{root: value})
	}
	if err != nil {
		return nil // only for values that the format cannot represent; there are none
	}
	return body
}
