package registry

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// client speaks the protocol with a server, without a network.
type client struct {
	t *testing.T
	r *Registry
}

func newClient(t *testing.T) client { return client{t, New(time.Second)} }

func (c client) do(method, path, accept, body string) *httptest.ResponseRecorder {
	c.t.Helper()
	q := httptest.NewRequest(method, "/eureka/"+path, strings.NewReader(body))
	q.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	c.r.Handler().ServeHTTP(w, q)
	return w
}

func (c client) want(code int, method, path, body string) {
	c.t.Helper()
	if w := c.do(method, path, "application/json", body); w.Code != code {
		c.t.Fatalf("%s %s: got %d %s, want %d", method, path, w.Code, w.Body, code)
	}
}

// registration is what the Java client sends, reduced to the relevant fields.
func registration(id, status string) string {
	return fmt.Sprintf(`{"instance": {"instanceId": %q, "hostName": "10.0.0.1", "app": "SHOP", "ipAddr": "10.0.0.1",
		"status": %q, "overriddenStatus": "UNKNOWN", "port": {"$": 8080, "@enabled": "true"}, "securePort": {"$": "443", "@enabled": "false"},
		"countryId": 1, "dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
		"leaseInfo": {"renewalIntervalInSecs": 1, "durationInSecs": 3}, "metadata": {"zone": "a", "@class": "java.util.Map"}, "vipAddress": "shop",
		"lastUpdatedTimestamp": "1", "lastDirtyTimestamp": "1700000000000", "isCoordinatingDiscoveryServer": "false"}}`, id, status)
}

const one = "apps/SHOP/web-1"

func (c client) register(status string) {
	c.t.Helper()
	c.want(http.StatusNoContent, "POST", "apps/SHOP", registration("web-1", status))
}

func (c client) heartbeat() {
	c.t.Helper()
	c.want(http.StatusOK, "PUT", one+"?status=UP&lastDirtyTimestamp=1700000000000", "")
}

// is checks the instance's state on the server.
func (c client) is(status, overridden, action string) {
	c.t.Helper()
	var got struct{ Instance Instance }
	w := c.do("GET", one, "application/json", "")
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		c.t.Fatalf("%v in %s", err, w.Body)
	}
	if i := got.Instance; i.Status != status || i.Overridden != overridden || i.Action != action {
		c.t.Fatalf("got %s, %s, %s, want %s, %s, %s", i.Status, i.Overridden, i.Action, status, overridden, action)
	}
}

// listed returns the instance's status in an answer to clients, as JSON and as XML,
// or "" if it is not listed.
func (c client) listed(path string) (asJSON, asXML string) {
	c.t.Helper()
	var inJSON struct {
		Applications struct{ Application []application }
		Application  application
	}
	type instance struct {
		ID     string `xml:"instanceId"`
		Status string `xml:"status"`
	}
	var inXML struct {
		Apps []struct {
			Instances []instance `xml:"instance"`
		} `xml:"application"`
		Instances []instance `xml:"instance"`
	}
	read := func(accept string, into any, unmarshal func([]byte, any) error) {
		c.t.Helper()
		w := c.do("GET", path, accept, "")
		if w.Code == http.StatusNotFound {
			return
		}
		if err := unmarshal(w.Body.Bytes(), into); err != nil {
			c.t.Fatalf("%v in %s", err, w.Body)
		}
	}
	read("application/json", &inJSON, json.Unmarshal)
	read("application/xml", &inXML, xml.Unmarshal)
	var j, x []string
	for _, a := range append(inJSON.Applications.Application, inJSON.Application) {
		for _, i := range a.Instances {
			j = append(j, i.Status)
		}
	}
	for _, a := range inXML.Apps {
		inXML.Instances = append(inXML.Instances, a.Instances...)
	}
	for _, i := range inXML.Instances {
		x = append(x, i.Status)
	}
	if len(j) > 1 || len(x) > 1 {
		c.t.Fatalf("%s: %q in JSON, %q in XML", path, j, x)
	}
	return strings.Join(j, ""), strings.Join(x, "")
}
func TestHeartbeatOfUnknown(t *testing.T) {
	c := newClient(t)
	c.want(http.StatusNotFound, "PUT", one+"?status=UP", "")
	c.register(Up)
	c.heartbeat()
	c.want(http.StatusOK, "DELETE", one, "")
	c.want(http.StatusNotFound, "PUT", one+"?status=UP", "")
	c.want(http.StatusNotFound, "DELETE", one, "")
	c.want(http.StatusNotFound, "PUT", one+"/status?value=DOWN", "")
	c.want(http.StatusNotFound, "DELETE", one+"/status?value=UP", "")
	c.want(http.StatusNotFound, "GET", one, "")
}

// A client with a newer registration than the server's is told to register again.
func TestHeartbeatOfNewerRegistration(t *testing.T) {
	c := newClient(t)
	c.register(Up)
	c.want(http.StatusNotFound, "PUT", one+"?status=UP&lastDirtyTimestamp=1700000000001", "")
	c.want(http.StatusOK, "PUT", one+"?status=UP&lastDirtyTimestamp=1699999999999", "")
}

func TestOverrideSurvives(t *testing.T) {
	c := newClient(t)
	c.register(Up)
	c.want(http.StatusOK, "PUT", one+"/status?value=OUT_OF_SERVICE", "")
	c.is(OutOfService, OutOfService, modified)
	c.heartbeat()
	c.is(OutOfService, OutOfService, modified)
	c.register(Up)
	c.is(OutOfService, OutOfService, added)
	c.heartbeat()
	c.is(OutOfService, OutOfService, added)
	// The app's own status DOWN is accepted.
	c.register(Down)
	c.is(Down, OutOfService, added)
	c.register(Up)
	c.is(OutOfService, OutOfService, added)

	c.want(http.StatusOK, "DELETE", one+"/status?value=UP", "")
	c.is(Up, Unknown, modified)
	c.heartbeat()
	c.is(Up, Unknown, modified)
}

func TestOverrideRemovedWithoutStatus(t *testing.T) {
	c := newClient(t)
	c.register(Up)
	c.want(http.StatusOK, "PUT", one+"/status?value=OUT_OF_SERVICE", "")
	c.want(http.StatusOK, "DELETE", one+"/status", "")
	c.is(Unknown, Unknown, modified)
	c.want(http.StatusNotFound, "PUT", one+"?status=UP", "")
	c.register(Up)
	c.is(Up, Unknown, added)
}

// An override that equals the instance's own status is not recorded.
func TestOverrideThatDoesNotDiffer(t *testing.T) {
	c := newClient(t)
	c.register(OutOfService)
	c.want(http.StatusOK, "PUT", one+"/status?value=OUT_OF_SERVICE", "")
	c.is(OutOfService, Unknown, added)
}

func TestCancelEndsOverride(t *testing.T) {
	c := newClient(t)
	c.register(Up)
	c.want(http.StatusOK, "PUT", one+"/status?value=DOWN", "")
	c.want(http.StatusOK, "DELETE", one, "")
	c.register(Up)
	c.is(Up, Unknown, added)
}

// An older registration that comes late changes nothing.
func TestLateRegistration(t *testing.T) {
	c := newClient(t)
	c.register(Up)
	late := strings.Replace(registration("web-1", Down), "1700000000000", "1600000000000", 1)
	c.want(http.StatusNoContent, "POST", "apps/SHOP", late)
	c.is(Up, Unknown, added)
}

func TestClientsReadTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t)
		go c.r.Run(t.Context())
		see := func(all, app, delta string) {
			t.Helper()
			for path, want := range map[string]string{"apps": all, "apps/": all, "apps/SHOP": app, "apps/shop": app, "apps/delta": delta} {
				if asJSON, asXML := c.listed(path); asJSON != want || asXML != want {
					t.Fatalf("%s shows %q in JSON and %q in XML, want %q", path, asJSON, asXML, want)
				}
			}
		}
		see("", "", "")
		c.register(Up)
		see("", "", "")
		pass(time.Second)
		synctest.Wait()
		see(Up, Up, Up)
		c.want(http.StatusOK, "PUT", one+"/status?value=OUT_OF_SERVICE", "")
		see(Up, Up, Up)
		pass(time.Second)
		synctest.Wait()
		see(OutOfService, OutOfService, OutOfService)
		c.want(http.StatusOK, "DELETE", one, "")
		see(OutOfService, OutOfService, OutOfService)
		pass(time.Second)
		synctest.Wait()
		see("", "", OutOfService) // apps/delta says DELETED

		var delta struct {
			Applications struct {
				Hash        string `json:"apps__hashcode"`
				Version     string `json:"versions__delta"`
				Application []application
			}
		}
		if err := json.Unmarshal(c.do("GET", "apps/delta", "application/json", "").Body.Bytes(), &delta); err != nil {
			t.Fatal(err)
		}
		if d := delta.Applications; d.Hash != "" || d.Version != "3" || d.Application[0].Instances[0].Action != deleted {
			t.Fatalf("the delta says %+v", d)
		}
	})
}

// pass lets fake time pass, in a synctest bubble.
func pass(d time.Duration) { <-time.NewTimer(d).C }

func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t)
		go c.r.Run(t.Context())
		c.register(Up)
		for range 5 {
			pass(2 * time.Second)
			c.heartbeat()
		}
		if got := c.r.Status("shop", "web-1"); got != Up {
			t.Fatalf("an instance with heartbeats is %q", got)
		}
		pass(5 * time.Second)
		if got := c.r.Status("shop", "web-1"); got != "" {
			t.Fatalf("an instance without heartbeats is still %q", got)
		}
		c.want(http.StatusNotFound, "PUT", one+"?status=UP", "")
	})
}

func TestHash(t *testing.T) {
	c := newClient(t)
	for n, status := range []string{Up, Down, Up} {
		c.want(http.StatusNoContent, "POST", "apps/SHOP", registration(fmt.Sprint("web-", n), status))
	}
	if w := c.do("GET", "apps", "application/json", ""); !strings.Contains(w.Body.String(), `"apps__hashcode":"DOWN_1_UP_2_"`) {
		t.Fatalf("got %s", w.Body)
	}
}

// Apps choose their ids; Spring's contain colons.
func TestOddIds(t *testing.T) {
	c := newClient(t)
	for id, path := range map[string]string{
		"host:shop:8080": "host:shop:8080",
		"a b":            "a%20b",
		"50%":            "50%25",
		"a/b":            "a%2Fb",
	} {
		c.want(http.StatusNoContent, "POST", "apps/shop", registration(id, Up))
		c.want(http.StatusOK, "PUT", "apps/SHOP/"+path, "")
		c.want(http.StatusOK, "PUT", "apps/SHOP/"+path+"/status?value=DOWN", "")
		c.want(http.StatusOK, "GET", "instances/"+path, "")
		if got := c.r.Status("SHOP", id); got != Down {
			t.Errorf("%q is %q, want DOWN", id, got)
		}
		c.want(http.StatusOK, "DELETE", "apps/SHOP/"+path, "")
	}
}

func TestBadRequests(t *testing.T) {
	c := newClient(t)
	for _, body := range []string{
		"", "<instance/>", "[]", `{"instance": {}}`,
		registration("", Up)[:20],
		strings.Replace(registration("web-1", Up), `"ipAddr": "10.0.0.1"`, `"ipAddr": ""`, 1),
		strings.Replace(registration("web-1", Up), `"hostName": "10.0.0.1"`, `"hostName": ""`, 1),
		strings.Replace(registration("web-1", Up), "SHOP", "OTHER", 1),
		strings.Replace(registration("web-1", Up), `"name": "MyOwn"`, `"name": ""`, 1),
		strings.Replace(registration("web-1", Up), "8080", `"x"`, 1),
		strings.Replace(registration("web-1", Up), `"zone": "a"`, `"zone": "`+strings.Repeat("a", maxRegistration)+`"`, 1),
	} {
		c.want(http.StatusBadRequest, "POST", "apps/SHOP", body)
	}
	c.register(Up)
	c.want(http.StatusBadRequest, "PUT", one+"/status", "")
	c.want(http.StatusBadRequest, "PUT", one+"/status?value=ASLEEP", "")
	c.want(http.StatusNotFound, "GET", "apps/OTHER", "")
	c.want(http.StatusNotFound, "GET", "vips/shop", "")
	c.want(http.StatusMethodNotAllowed, "PATCH", one, "")
}

func TestMemoryIsBounded(t *testing.T) {
	c := newClient(t)
	for n := range maxInstances {
		c.want(http.StatusNoContent, "POST", "apps/SHOP", registration(fmt.Sprint(n), Up))
	}
	c.want(http.StatusInsufficientStorage, "POST", "apps/SHOP", registration("one more", Up))
	c.want(http.StatusNoContent, "POST", "apps/SHOP", registration("7", Up))
	for n := range maxQuestions + 10 {
		c.do("GET", fmt.Sprint("apps/", n), "application/json", "")
	}
	if n := len(c.r.cache.shown); n > maxQuestions {
		t.Fatalf("%d answers are kept", n)
	}
	if n := len(c.r.changes); n > maxInstances {
		t.Fatalf("%d changes are kept", n)
	}
}

// An answer is not kept if something changed while it was created.
func TestChangeWhileAnswering(t *testing.T) {
	var answers []string
	c := cache{now: map[question][]byte{}, shown: map[question][]byte{}}
	c.make = func(question) []byte {
		answers = append(answers, "made")
		if len(answers) == 1 {
			c.invalidate()
		}
		return []byte(fmt.Sprint(len(answers)))
	}
	q := question{path: "apps"}
	if got := string(c.get(q)); got != "1" {
		t.Fatalf("got %s", got)
	}
	c.refresh()
	if got := string(c.get(q)); got != "2" {
		t.Fatalf("after the refresh: got %s, want a new answer", got)
	}
	c.refresh()
	if !slices.Equal(answers, []string{"made", "made"}) {
		t.Fatalf("made %d answers, want 2", len(answers))
	}
}

// Any registration gets an answer, and afterwards the server's answers can still be
// parsed.
func FuzzRegistration(f *testing.F) {
	f.Add("SHOP", registration("web-1", Up))
	f.Add("SHOP", `{"instance": {"metadata": {"1 <": "a"}}}`)
	f.Fuzz(func(t *testing.T, app, body string) {
		r := New(time.Second)
		q := httptest.NewRequest(http.MethodPost, "/eureka/apps/x", strings.NewReader(body))
		q.SetPathValue("app", app)
		w := httptest.NewRecorder()
		r.postInstance(w, q)
		if w.Code != http.StatusNoContent {
			return
		}
		for _, accept := range []string{"application/json", "application/xml"} {
			q := httptest.NewRequest(http.MethodGet, "/eureka/apps", http.NoBody)
			q.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			r.Handler().ServeHTTP(w, q)
			var err error
			if accept == "application/json" {
				err = json.Unmarshal(w.Body.Bytes(), new(any))
			} else {
				err = xml.Unmarshal(w.Body.Bytes(), new(struct{}))
			}
			if err != nil {
				t.Fatalf("%s: %v", w.Body, err)
			}
		}
	})
}
