package steps

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"

	"github.com/tidwall/gjson"
)

// etcdStatus returns the status that an etcd member reports.
func etcdStatus(t *testing.T, m *servers.EtcdMember) (member, leader string) {
	t.Helper()
	resp, err := http.Post(m.URL+"/v3/maintenance/status", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return gjson.GetBytes(body, "header.member_id").String(), gjson.GetBytes(body, "leader").String()
}

func etcdPreset(t *testing.T, m *servers.EtcdMember) *Registry {
	t.Helper()
	return preset(t, "etcd", drain.Pod{}, map[string]string{
		"LASTCALL_ETCD_URL": m.URL, "LASTCALL_ETCD_CA_FILE": m.CAFile, "LASTCALL_ETCD_CERT_FILE": m.CertFile, "LASTCALL_ETCD_KEY_FILE": m.KeyFile,
	})
}

func etcdLeader(t *testing.T, members []*servers.EtcdMember) int {
	t.Helper()
	leader := -1
	wait.Until(t, "a leader", func() bool {
		for n, m := range members {
			if id, leads := etcdStatus(t, m); id == leads {
				leader = n
			}
		}
		return leader >= 0
	})
	return leader
}

// A leader transfers the leadership; for a follower nothing changes.
func TestEtcd(t *testing.T) {
	members := servers.StartEtcd(t, 3, false)
	leader := etcdLeader(t, members)
	follower := members[(leader+1)%3]

	f := etcdPreset(t, follower)
	do(t, "Withdraw of a follower", f.Withdraw)
	if !isWithdrawn(t, f) || etcdLeader(t, members) != leader {
		t.Fatal("a follower's withdrawal moved the leadership, or is not seen")
	}
	r := etcdPreset(t, members[leader])
	if found, err := r.Find(within(t)); err != nil || !strings.HasPrefix(found, "member=") {
		t.Fatalf("Find: %q, %v", found, err)
	}
	if isWithdrawn(t, r) {
		t.Fatal("withdrawn while it leads")
	}
	do(t, "Withdraw", r.Withdraw)
	wait.Until(t, "Withdrawn", func() bool { return isWithdrawn(t, r) })
	if etcdLeader(t, members) == leader || r.GaveUp() != "" {
		t.Errorf("it leads still; gave up because of %q", r.GaveUp())
	}
	do(t, "Withdraw again", r.Withdraw)
	do(t, "Restore", r.Restore)
}

// Of the other two members, the one that is tried first hangs. The leadership
// goes to the healthy one.
func TestEtcdWithAMemberThatHangs(t *testing.T) {
	members := servers.StartEtcd(t, 3, false)
	leader := etcdLeader(t, members)
	hung := (leader + 1) % 3
	id, _ := etcdStatus(t, members[hung])
	other, _ := etcdStatus(t, members[(leader+2)%3])
	if order, _ := compareNumbers(other, id); order < 0 { // etcd lists members by id
		hung = (leader + 2) % 3
	}
	members[hung].Freeze(t)
	defer members[hung].Thaw(t)
	r := etcdPreset(t, members[leader])
	wait.For(t, "a withdrawal", func() error { return r.Withdraw(within(t)) })
	wait.Until(t, "Withdrawn", func() bool { return isWithdrawn(t, r) })
}

// A single member cannot transfer the leadership. This one requires client
// certificates.
func TestEtcdAlone(t *testing.T) {
	alone := servers.StartEtcd(t, 1, true)[0]
	r := etcdPreset(t, alone)
	wait.For(t, "a withdrawal", func() error { return r.Withdraw(within(t)) })
	if !isWithdrawn(t, r) || !strings.Contains(r.GaveUp(), "no other member") {
		t.Errorf("gave up because of %q", r.GaveUp())
	}

	alone.CertFile, alone.KeyFile = "", ""
	if err := etcdPreset(t, alone).Withdraw(within(t)); err == nil {
		t.Error("without a certificate it was let in")
	}
	alone.CAFile = ""
	if err := etcdPreset(t, alone).Withdraw(within(t)); err == nil || !strings.Contains(err.Error(), "set tls.ca") {
		t.Errorf("without the CA: %v", err)
	}
}
