package steps

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// Two Dubbo providers serve a consumer that calls all the time, through
// ZooKeeper. One of them is drained without a failed call, and restored.
func TestDubbo(t *testing.T) {
	z := servers.StartZooKeeper(t)
	a := servers.StartDubboProvider(t, z, "a")
	servers.StartDubboProvider(t, z, "b")
	consumer := servers.StartDubboConsumer(t, z)
	call := func() string {
		t.Helper()
		_, header, err := get(consumer)
		if err != nil {
			t.Fatalf("a consumer's call failed: %v", err)
		}
		return header.Get("X-Pod")
	}
	wait.Until(t, "calls to a", func() bool { return call() == "a" })
	wait.Until(t, "calls to b", func() bool { return call() == "b" })

	r := preset(t, "dubbo", drain.Pod{}, map[string]string{"LASTCALL_DUBBO_URL": a.QoS})
	if _, err := r.Find(within(t)); err != nil {
		t.Fatalf("Find: %v", err)
	}
	if isWithdrawn(t, r) || !isListed(t, r) {
		t.Fatal("withdrawn before Withdraw")
	}
	do(t, "Withdraw", r.Withdraw)
	wait.Until(t, "Withdrawn", func() bool { call(); return isWithdrawn(t, r) })
	for seen := time.Now(); time.Since(seen) < time.Second; { // the default of CLIENT_REFRESH
		call()
	}
	for range 50 {
		if who := call(); who != "b" {
			t.Fatalf("a consumer still calls %s", who)
		}
	}
	do(t, "Withdraw again", r.Withdraw)
	if isListed(t, r) {
		t.Error("listed while it is withdrawn")
	}

	// A restarted sidecar sees the withdrawal.
	if !isWithdrawn(t, preset(t, "dubbo", drain.Pod{}, nil)) {
		t.Error("a new registry does not see the withdrawal")
	}

	do(t, "Restore", r.Restore)
	do(t, "Restore again", r.Restore)
	wait.Until(t, "calls to a", func() bool { return call() == "a" })
	wait.Until(t, "Listed after Restore", func() bool { return isListed(t, r) })
	if isWithdrawn(t, r) {
		t.Error("withdrawn after Restore")
	}

	// The provider has ended: clients are not sent to it any more.
	a.Kill()
	do(t, "Withdraw after the end", r.Withdraw)
	if !isWithdrawn(t, r) {
		t.Error("a provider that has ended is not withdrawn")
	}
}

func ask(url string) (body string, err error) {
	body, _, err = get(url)
	return body, err
}

func get(url string) (body string, header http.Header, err error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return string(text), resp.Header, err
}
