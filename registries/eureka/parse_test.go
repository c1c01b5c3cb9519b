package eureka

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"
)

func all(scan func(visit func(instance) bool) error) ([]instance, error) {
	var found []instance
	err := scan(func(i instance) bool {
		found = append(found, i)
		return true
	})
	return found, err
}

func TestScanJSON(t *testing.T) {
	const one = `{"instanceId":"a","hostName":"h","app":"ORDERS","ipAddr":"10.0.0.1","status":"UP","port":{"$":8080,"@enabled":"true"},"leaseInfo":{"instance":{"not":"one"}},"metadata":{"instance":"nor this"}}`
	for _, test := range []struct {
		name, root, body string
		want             int // instances; negative: an error
	}{
		{"one", "instance", `{"instance":` + one + `}`, 1},
		{"application", "application", `{"application":{"name":"ORDERS","instance":[` + one + `,` + one + `]}}`, 2},
		{"not in a list", "application", `{"application":{"name":"ORDERS","instance":` + one + `}}`, 1},
		{"applications", "applications", `{"applications":{"versions__delta":1,"apps__hashcode":"UP_2_","application":[{"name":"A","instance":[` + one + `]},{"instance":` + one + `,"name":"B"}]}}`, 2},
		{"application not in a list", "applications", `{"applications":{"application":{"name":"A","instance":[` + one + `]}}}`, 1},
		{"no applications", "applications", `{"applications":{"versions__delta":"1","apps__hashcode":"","application":[]}}`, 0},
		{"no instance", "application", `{"application":{"name":"A","instance":null}}`, 0},
		{"instance is text", "application", `{"application":{"name":"A","instance":"a"}}`, 0},
		{"another root", "applications", `{"application":{"instance":[` + one + `]}}`, -1},
		{"a list", "applications", `[` + one + `]`, -1},
		{"text", "applications", `"applications"`, -1},
		{"empty", "applications", ``, -1},
		{"cut off", "applications", `{"applications":{"application":[`, -1},
		{"cut off at the end", "applications", `{"applications":{"application":[]}`, -1},
		{"an instance that is a number", "application", `{"application":{"instance":[1]}}`, -1},
		{"an id that is an object", "instance", `{"instance":{"instanceId":{}}}`, -1},
		{"deep", "applications", `{"applications":` + strings.Repeat(`[`, 50) + strings.Repeat(`]`, 50) + `}`, -1},
	} {
		found, err := all(func(visit func(instance) bool) error { return scanJSON(strings.NewReader(test.body), test.root, visit) })
		if (err != nil) != (test.want < 0) || err == nil && len(found) != test.want {
			t.Errorf("%s: got %d instances and %v, want %d", test.name, len(found), err, test.want)
		}
		for _, i := range found {
			if i.name() != (name{"ORDERS", "a"}) || !i.isAt([]netip.Addr{netip.MustParseAddr("10.0.0.1")}, 8080) || !i.available() {
				t.Errorf("%s: got %+v", test.name, i)
			}
		}
	}
}

func TestScanXML(t *testing.T) {
	const one = `<instance><instanceId>a</instanceId><hostName>h</hostName><app>ORDERS</app><ipAddr>10.0.0.1</ipAddr><status>UP</status><port enabled="true">8080</port><metadata><instance>not one</instance></metadata></instance>`
	for _, test := range []struct {
		name, root, body string
		want             int
	}{
		{"application", "application", `<application><name>ORDERS</name>` + one + one + `</application>`, 2},
		{"applications", "applications", `<?xml version="1.0"?><applications><versions__delta>1</versions__delta><application>` + one + `</application><application>` + one + `</application></applications>`, 2},
		{"no applications", "applications", `<applications/>`, 0},
		{"another root", "applications", `<application/>`, -1},
		{"a page", "applications", `<!DOCTYPE html><p>Welcome!`, -1},
		{"text", "applications", `applications`, -1},
		{"empty", "applications", ``, -1},
		{"cut off", "applications", `<applications><application>` + one, -1},
		{"cut off in an instance", "applications", `<applications><application><instance><app>`, -1},
		{"deep", "applications", `<applications>` + strings.Repeat(`<a>`, 50) + strings.Repeat(`</a>`, 50) + `</applications>`, -1},
	} {
		found, err := all(func(visit func(instance) bool) error { return scanXML(strings.NewReader(test.body), test.root, visit) })
		if (err != nil) != (test.want < 0) || err == nil && len(found) != test.want {
			t.Errorf("%s: got %d instances and %v, want %d", test.name, len(found), err, test.want)
		}
		for _, i := range found {
			if i.name() != (name{"ORDERS", "a"}) || !i.isAt([]netip.Addr{netip.MustParseAddr("10.0.0.1")}, 8080) || !i.available() {
				t.Errorf("%s: got %+v", test.name, i)
			}
		}
	}
}

func TestShapesOfAnInstance(t *testing.T) {
	ip := netip.MustParseAddr("10.0.0.1")
	for body, want := range map[string]bool{
		`{"ipAddr":"10.0.0.1","port":{"$":8080,"@enabled":"true"}}`:                                          true,
		`{"ipAddr":"10.0.0.1","port":{"$":"8080","@enabled":true}}`:                                          true,
		`{"ipAddr":"10.0.0.1","port":{"$":8080}}`:                                                            true,
		`{"ipAddr":"10.0.0.1","port":{"$":80,"@enabled":"true"},"securePort":{"$":8080,"@enabled":"true"}}`:  true,
		`{"ipAddr":"::ffff:10.0.0.1","port":{"$":8080,"@enabled":"true"}}`:                                   true,
		`{"ipAddr":"10.0.0.1","port":{"$":8080,"@enabled":"false"}}`:                                         false,
		`{"ipAddr":"10.0.0.1","port":{"$":80,"@enabled":"true"},"securePort":{"$":8080,"@enabled":"false"}}`: false,
		`{"ipAddr":"10.0.0.2","port":{"$":8080,"@enabled":"true"}}`:                                          false,
		`{"ipAddr":"pod-1","hostName":"10.0.0.1","port":{"$":8080,"@enabled":"true"}}`:                       false,
		`{"port":{"$":8080,"@enabled":"true"}}`:                                                              false,
		`{"ipAddr":"10.0.0.1"}`:                                                                              false,
		`{"ipAddr":"10.0.0.1","port":null,"securePort":null}`:                                                false,
	} {
		var i instance
		if err := json.Unmarshal([]byte(body), &i); err != nil || i.isAt([]netip.Addr{ip}, 8080) != want {
			t.Errorf("%s: at the pod's address: %v, want %v (%v)", body, i.isAt([]netip.Addr{ip}, 8080), want, err)
		}
	}
	var old instance
	if err := json.Unmarshal([]byte(`{"hostName":"h","app":"A","overriddenstatus":"DOWN","lastUpdatedTimestamp":1700000000000}`), &old); err != nil ||
		old.name() != (name{"A", "h"}) || !old.overridden() || old.Updated.number() != 1700000000000 {
		t.Errorf("an old server's instance: got %+v, %v", old, err)
	}
}

// Input that is accepted is JSON, at least up to its end.
func FuzzScanJSON(f *testing.F) {
	f.Add([]byte(`{"applications":{"versions__delta":"1","application":[{"name":"A","instance":[{"instanceId":"a","port":{"$":1,"@enabled":"true"}}]}]}}`))
	f.Add([]byte(`{"applications":{"application":{"instance":{"instanceId":1,"status":null}}}}`))
	f.Add([]byte(`{"applications":[[[[[[[[[[[]]]]]]]]]]]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		found, err := all(func(visit func(instance) bool) error {
			return scanJSON(strings.NewReader(string(body)), "applications", visit)
		})
		if len(found) > len(body) {
			t.Errorf("%d instances in %d bytes", len(found), len(body))
		}
		var root map[string]json.RawMessage
		if err == nil && json.Valid(body) && (json.Unmarshal(body, &root) != nil || root["applications"] == nil) {
			t.Errorf("accepted without applications: %q", body)
		}
		if err == nil && len(body) == 0 {
			t.Error("accepted nothing")
		}
	})
}

// Input that is accepted is a complete XML document.
func FuzzScanXML(f *testing.F) {
	f.Add([]byte(`<applications><application><name>A</name><instance><instanceId>a</instanceId><port enabled="true">1</port></instance></application></applications>`))
	f.Add([]byte(`<applications/>`))
	f.Add([]byte(`<applications><instance/><instance></applications>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		found, err := all(func(visit func(instance) bool) error {
			return scanXML(strings.NewReader(string(body)), "applications", visit)
		})
		if len(found) > len(body) {
			t.Errorf("%d instances in %d bytes", len(found), len(body))
		}
		var document struct {
			XMLName xml.Name
		}
		if err == nil && xml.Unmarshal(body, &document) != nil {
			t.Errorf("accepted what is no XML document: %q", body)
		}
	})
}

// An instance is read as it was written, whatever its names contain.
func FuzzInstance(f *testing.F) {
	f.Add("host:app:8080", "ORDERS", "UP")
	f.Add(`a "b" <c> & %20`, "ä", "OUT_OF_SERVICE")
	f.Fuzz(func(t *testing.T, id, app, status string) {
		if !utf8.ValidString(id) || !utf8.ValidString(app) || !utf8.ValidString(status) {
			return
		}
		body, err := json.Marshal(map[string]any{"application": map[string]any{"instance": []any{
			map[string]any{"instanceId": id, "app": app, "status": status, "hostName": "h"},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		found, err := all(func(visit func(instance) bool) error {
			return scanJSON(strings.NewReader(string(body)), "application", visit)
		})
		if err != nil || len(found) != 1 || string(found[0].ID) != id || string(found[0].App) != app || string(found[0].Status) != status {
			t.Errorf("%s: got %+v, %v", body, found, err)
		}
	})
}

// A URL is either parsed as it is meant or refused. No part of a possible
// password ends up in a part that can be shown.
func FuzzPeerURL(f *testing.F) {
	for _, password := range []string{"simple", "p%40ss", "p@ss", "a/b@c", "12#34", "12?34", "1/2", "a b", "%zz", `a\b`, "[x]", "ä"} {
		f.Add(password)
	}
	_, refused := parsePeer("x")
	_, cut := parsePeer("http://host/a?b")
	f.Fuzz(func(t *testing.T, password string) {
		p, err := parsePeer("http://user:" + password + "@host:8761/eureka/")
		switch {
		case err == nil && p.url != "http://host:8761/eureka":
			t.Errorf("with the password %q the server is taken to be at %q", password, p.url)
		case err != nil && err.Error() != refused.Error() && err.Error() != cut.Error():
			t.Errorf("the password %q changes the error: %v", password, err)
		}
	})
}

func TestRejectedShapesSayWhatIsWrong(t *testing.T) {
	err := scanJSON(strings.NewReader(`{"status":"UP"}`), "applications", nil)
	if !errors.Is(err, errShape) {
		t.Errorf("got %v, want %v", err, errShape)
	}
}
