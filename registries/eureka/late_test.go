package eureka

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// What the app has sent last, that it is DOWN, is registered by the real server
// right after the first cancellation: a stage between it and Lastcall sees to
// that order.
func TestLateRegistrationIsCancelled(t *testing.T) {
	s := servers(t, oneServer)
	behind, err := url.Parse(s.URLs[0])
	if err != nil {
		t.Fatal(err)
	}
	a := newApp(s, nil)
	var once sync.Once
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: behind.Scheme, Host: behind.Host})
	stage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		forward.ServeHTTP(w, r)
		if r.Method == http.MethodDelete && r.URL.Path == behind.Path+"/apps/"+a.app+"/"+a.id {
			once.Do(func() { a.registerAs(t, down) })
		}
	}))
	defer stage.Close()

	a.Register(t)
	a.cfg.URLs, a.cfg.App, a.cfg.InstanceID = []string{stage.URL + behind.Path}, a.app, a.id
	r := a.registry(t)
	do(t, "Withdraw", r.Withdraw)
	do(t, "Deregister", r.Deregister)
	once.Do(func() { t.Error("the stage has seen no cancellation") })
	if a.Known(t) {
		t.Error("an instance that was registered late is left behind")
	}
}
