package steps

import (
	"net/http"
	"strings"
	"testing"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// A primary hands over to its replica; for a replica nothing changes.
func TestPatroni(t *testing.T) {
	members := servers.StartPatroni(t, 2)
	primary, replica := members[0], members[1]
	leads := func(m *servers.PatroniMember) bool {
		_, err := ask(m.URL + "/primary")
		return err == nil
	}
	at := func(m *servers.PatroniMember) *Registry {
		return preset(t, "patroni", drain.Pod{}, map[string]string{"LASTCALL_PATRONI_URL": m.URL})
	}
	r := at(replica)
	do(t, "Withdraw of a replica", r.Withdraw)
	if !isWithdrawn(t, r) || !leads(primary) {
		t.Fatal("a replica's withdrawal is not seen, or moved the primary")
	}
	r = at(primary)
	if found, err := r.Find(within(t)); err != nil || found != "member=p0" {
		t.Fatalf("Find: %q, %v", found, err)
	}
	if isWithdrawn(t, r) {
		t.Fatal("withdrawn while it is primary")
	}
	// Patroni refuses while the replica has only just started.
	wait.For(t, "a withdrawal", func() error { return r.Withdraw(within(t)) })
	wait.For(t, "Withdrawn", func() error {
		gone, err := r.Withdrawn(within(t))
		if err == nil && !gone {
			err = r.Withdraw(within(t)) // the drainer also does this repeatedly
		}
		if err == nil && !isWithdrawn(t, r) {
			err = http.ErrServerClosed // any error: not yet
		}
		return err
	})
	wait.Until(t, "the other being primary", func() bool { return leads(replica) })
	if leads(primary) || r.GaveUp() != "" {
		t.Errorf("it is primary still; gave up because of %q", r.GaveUp())
	}
}

// A single primary cannot hand over.
func TestPatroniAlone(t *testing.T) {
	s := startScript(t, map[string]string{
		"get /patroni": `{"state":"running","role":"primary","patroni":{"version":"4.1.5","scope":"test","name":"p0"}}`,
		"get /primary": "", "get /cluster": `{"members":[{"name":"p0","role":"leader"}],"scope":"test"}`,
	})
	r := preset(t, "patroni", drain.Pod{}, map[string]string{"LASTCALL_PATRONI_URL": s.url})
	do(t, "Withdraw", r.Withdraw)
	if !isWithdrawn(t, r) || !strings.Contains(r.GaveUp(), "no replica") {
		t.Errorf("gave up because of %q", r.GaveUp())
	}
}
