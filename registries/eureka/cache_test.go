package eureka

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
	"lastcall/registries/registrytest"
)

// Once Withdrawn returns true, no call of a client lists the instance, at a
// server with a response cache. The server also gives answers that are newer
// than what clients read; they must not mislead the plug-in.
func TestNoClientIsToldAfterWithdrawn(t *testing.T) {
	t.Parallel()
	servers.NeedEureka(t)
	s, err := servers.StartEureka(servers.EurekaOptions{ResponseCache: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	server := s.URLs[0]

	ahead := false
	for range 10 { // the cache may be renewed in the very moment of the withdrawal
		if ahead {
			break
		}
		a := newApp(s, func(a *fakeApp) { a.cfg.App, a.cfg.InstanceID = a.app, a.id })
		a.Register(t)
		told := map[string]func() bool{
			"all, JSON":     func() bool { return tells(t, server+"/apps/", "application/json", a.id) },
			"all, XML":      func() bool { return tells(t, server+"/apps/", "application/xml", a.id) },
			"changes, JSON": func() bool { return tells(t, server+"/apps/delta", "application/json", a.id) },
			"changes, XML":  func() bool { return tells(t, server+"/apps/delta", "application/xml", a.id) },
		}
		for what, ask := range told {
			wait.Until(t, what+" telling of the instance", ask)
		}
		r := a.registry(t)
		registrytest.Call(t, "Withdraw", r.Withdraw)

		// Nobody has requested this answer before, so it is built on demand.
		naive := tells(t, server+"/apps/"+a.app, "application/json", a.id)
		if !naive && told["all, JSON"]() {
			ahead = true
		}
		registrytest.UntilWithdrawn(t, r)
		for what, ask := range told {
			if ask() {
				t.Errorf("%s: clients get the instance although Withdrawn returns true", what)
			}
		}
		// Clients that read only changes must have seen this one.
		if _, answer := send(t, http.MethodGet, server+"/apps/delta", nil); !strings.Contains(string(answer), a.id) {
			t.Error("the changes do not show the withdrawal although Withdrawn returns true")
		}
	}
	if !ahead {
		t.Error("no answer was newer than what clients read: is the server's response cache on? Without it this test proves nothing")
	}
}

// tells reports whether an answer, JSON or XML, lists the instance as UP. It is
// a simple check that does not use the plug-in's own parser.
func tells(t *testing.T, url, accept, id string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body strings.Builder
	if err := resp.Write(&body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, %v", url, resp.StatusCode, err)
	}
	quoted, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	text := body.String()
	begin, status, end := `"instanceId":`+string(quoted), `"status":"UP"`, `"actionType"`
	if accept == asXML {
		begin, status, end = "<instanceId>"+id+"</instanceId>", "<status>UP</status>", "</instance>"
	}
	_, after, found := strings.Cut(text, begin)
	one, _, _ := strings.Cut(after, end)
	return found && strings.Contains(one, status)
}

// A server that keeps an outdated answer is made to discard it.
func TestOutdatedAnswerIsThrownAway(t *testing.T) {
	t.Parallel()
	servers.NeedEureka(t)
	// With many instances, another change just before, and answers that are
	// renewed all the time, an answer is likely to be under construction when
	// an instance is withdrawn.
	s, err := servers.StartEureka(servers.EurekaOptions{ResponseCache: 5 * time.Millisecond, Outdated: 3 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	for range 300 {
		newApp(s, nil).Register(t)
	}
	noise := newApp(s, nil)
	const tries = 2000 // usually a handful is enough
	for range tries {
		a := newApp(s, func(a *fakeApp) { a.cfg.App, a.cfg.InstanceID = a.app, a.id })
		a.Register(t)
		wait.Until(t, "the instance being listed", func() bool { return a.Listed(t) })
		r := a.registry(t)
		noise.Register(t) // the answer under construction was begun before the withdrawal
		registrytest.Call(t, "Withdraw", r.Withdraw)
		// age returns how old the withdrawal is, by the server's clock.
		age := func() time.Duration {
			i, err := r.peers[0].instance(t.Context(), name{a.app, a.id})
			if err != nil {
				t.Fatal(err)
			}
			return i.age
		}
		outdated := func() bool { return a.Listed(t) && age() > time.Second }
		wait.Until(t, "it being gone, or an outdated answer", func() bool { return !a.Listed(t) || outdated() })
		if !outdated() {
			continue
		}
		wait.Until(t, "its growing old", func() bool { return age() > rewriteAfter })
		if !a.Listed(t) {
			continue // the answer was only late
		}
		if registrytest.Withdrawn(t, r) {
			t.Error("Withdrawn returns true while clients get the instance from the server")
		}
		// Another answer under construction may miss the second override, too.
		// A drain also withdraws again and again.
		wait.Until(t, "Withdrawn", func() bool {
			registrytest.Call(t, "Withdraw again", r.Withdraw)
			return registrytest.Withdrawn(t, r)
		})
		if a.Listed(t) {
			t.Error("Withdrawn returns true, but a client still gets the instance")
		}
		if got := a.statusAt(t, s.URLs[0]); got != outOfService {
			t.Errorf("it is %s now, want OUT_OF_SERVICE", got)
		}
		return
	}
	t.Errorf("no outdated answer was kept in %d withdrawals: if servers no longer do that, Withdraw need not care", tries)
}
