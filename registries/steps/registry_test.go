package steps

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"lastcall/drain"
)

// script is a server with answers that the test sets: a code and a body by
// method and path.
type script struct {
	url     string
	answers atomic.Pointer[map[string]string]
	asked   atomic.Int64
}

func startScript(t *testing.T, answers map[string]string) *script {
	s := &script{}
	s.answers.Store(&answers)
	s.url = serve(t, func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		body, ok := (*s.answers.Load())[strings.ToLower(r.Method)+" "+r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, body)
	})
	return s
}

func (s *script) registry(t *testing.T, yaml string) *Registry {
	t.Helper()
	return fromYAML(t, drain.Pod{Name: "pod-0"}, strings.ReplaceAll(yaml, "URL", s.url))
}

// A withdrawal that can never succeed ends the wait, with a reason, until the
// drain is taken back.
func TestGivingUp(t *testing.T) {
	s := startScript(t, map[string]string{"post /out": "", "get /state": `{"status":"STALLED"}`})
	r := s.registry(t, `
withdraw:
- post: URL/out
withdrawn:
- get: URL/state
  when: status == GONE
  never: [{when: status == STALLED, because: the shutdown is stalled}, 404]
`)
	if _, err := r.Withdrawn(within(t)); err == nil || !strings.Contains(err.Error(), "stalled") {
		t.Errorf("before Withdraw: got %v, want an error that says why", err)
	}
	do(t, "Withdraw", r.Withdraw)
	if r.GaveUp() != "" || !isWithdrawn(t, r) || !strings.Contains(r.GaveUp(), "the shutdown is stalled") || !strings.Contains(r.GaveUp(), "steps.yaml:") {
		t.Errorf("gave up because of %q", r.GaveUp())
	}
	do(t, "Restore", r.Restore)
	s.answers.Store(&map[string]string{"post /out": "", "get /state": `{"status":"UP"}`})
	if r.GaveUp() != "" || isWithdrawn(t, r) {
		t.Errorf("after Restore it still counts as withdrawn: %q", r.GaveUp())
	}
	s.answers.Store(&map[string]string{"post /out": ""})
	do(t, "Withdraw", r.Withdraw)
	if !isWithdrawn(t, r) || !strings.Contains(r.GaveUp(), "answered 404: according to") {
		t.Errorf("gave up because of %q", r.GaveUp())
	}

	// An answer to a call of withdraw can have that meaning too.
	r = s.registry(t, "withdraw:\n- post: URL/alone\n  never: [{code: 404, because: it is the only member}]\nwithdrawn:\n- get: URL/state")
	do(t, "Withdraw", r.Withdraw)
	if !isWithdrawn(t, r) || !strings.Contains(r.GaveUp(), "only member") {
		t.Errorf("gave up because of %q", r.GaveUp())
	}
}

// The result of a call of an earlier drain does not count for the present one.
func TestLateAnswer(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/state" {
			close(asked)
			<-answer
			http.NotFound(w, r)
		}
	})
	r := fromYAML(t, drain.Pod{}, strings.ReplaceAll("withdraw:\n- post: URL/out\nwithdrawn:\n- get: URL/state\n  never: [404]", "URL", url))
	do(t, "Withdraw", r.Withdraw)
	late := make(chan error)
	go func() {
		_, err := r.Withdrawn(context.Background())
		late <- err
	}()
	<-asked
	do(t, "Restore", r.Restore)
	do(t, "Withdraw", r.Withdraw)
	close(answer)
	if err := <-late; err != nil {
		t.Fatal(err)
	}
	if r.GaveUp() != "" {
		t.Errorf("an old answer ended the new withdrawal: %q", r.GaveUp())
	}
}

// Without conditions, Withdrawn is true once the calls of withdraw have
// succeeded.
func TestWithoutConditions(t *testing.T) {
	s := startScript(t, map[string]string{})
	r := s.registry(t, "withdraw:\n- post: URL/out")
	if err := r.Withdraw(within(t)); err == nil || isWithdrawn(t, r) {
		t.Fatalf("a call that fails: got %v, withdrawn", err)
	}
	s.answers.Store(&map[string]string{"post /out": ""})
	do(t, "Withdraw", r.Withdraw)
	if !isWithdrawn(t, r) {
		t.Error("not withdrawn after its calls have succeeded")
	}
	do(t, "Restore without calls", r.Restore)
	if isWithdrawn(t, r) {
		t.Error("still withdrawn after Restore")
	}
}

// A step can settle its section, and later ones use what it has set.
func TestSections(t *testing.T) {
	s := startScript(t, map[string]string{"get /me": `{"id":"m1","leader":"m1"}`, "get /members": `{"ids":["m1","m2"]}`, "post /move/m2": ""})
	r := s.registry(t, `
find:
- get: URL/me
  set: {me: id}
withdraw:
- get: URL/me
  end: [{when: 'leader != "${me}"'}]
- get: URL/members
  set: {other: 'ids.#(!="${me}")'}
  never: [missing]
- post: URL/move/${other}
withdrawn:
- get: URL/me
  when: leader != ${me}
`)
	do(t, "Withdraw", r.Withdraw)
	if isWithdrawn(t, r) {
		t.Error("withdrawn while it leads")
	}
	s.answers.Store(&map[string]string{"get /me": `{"id":"m1","leader":"m2"}`})
	do(t, "Withdraw of an instance that is not the leader", r.Withdraw)
	if !isWithdrawn(t, r) {
		t.Error("not withdrawn although it does not lead")
	}
	s.answers.Store(&map[string]string{"get /me": `{"id":"m1","leader":"m1"}`, "get /members": `{"ids":["m1"]}`})
	do(t, "Withdraw of the only member", r.Withdraw)
	if !strings.Contains(r.GaveUp(), "steps.yaml:") {
		t.Errorf("gave up because of %q", r.GaveUp())
	}
}

// The last result of find is used while find fails. Without a result nothing is
// called.
func TestLookups(t *testing.T) {
	s := startScript(t, map[string]string{"get /list": `{"pods":{"pod-0":7}}`, "post /out/7": "", "get /state/7": "out", "post /in/7": ""})
	yaml := "find:\n- get: URL/list\n  set: {id: 'pods.${LASTCALL_POD_NAME}'}\nwithdraw:\n- post: URL/out/${id}\nwithdrawn:\n- get: URL/state/${id}\n  contains: out\nrestore:\n- post: URL/in/${id}"
	r := s.registry(t, yaml)
	if found, err := r.Find(within(t)); err != nil || found != "id=7" {
		t.Fatalf("Find: %q, %v", found, err)
	}
	s.answers.Store(&map[string]string{"post /out/7": "", "get /state/7": "out"})
	do(t, "Withdraw", r.Withdraw)
	if !isWithdrawn(t, r) {
		t.Error("not withdrawn")
	}
	// A new registry knows nothing.
	r = s.registry(t, yaml)
	for what, call := range map[string]func(context.Context) error{"Withdraw": r.Withdraw, "Restore": r.Restore} {
		if err := call(within(t)); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("%s without its lookup: %v", what, err)
		}
	}
	// If the answer lacks a value, the error contains the path that was looked
	// up.
	s.answers.Store(&map[string]string{"get /list": `{"pods":{}}`})
	if _, err := r.Find(within(t)); err == nil || !strings.Contains(err.Error(), "has no pods.pod-0") {
		t.Errorf("Find: %v", err)
	}
}

// A withdrawal by this process is not a leftover.
func TestLeftover(t *testing.T) {
	s := startScript(t, map[string]string{"get /out": "out", "post /out": "", "delete /out": ""})
	r := s.registry(t, "withdraw:\n- post: URL/out\nwithdrawn:\n- get: URL/out\nrestore:\n- delete: URL/out\nleftover:\n- get: URL/out\n  not_yet: [404]")
	found, err := r.Find(within(t))
	if err != nil || !strings.Contains(found, "put back") || s.asked.Load() != 2 {
		t.Errorf("Find: %q, %v, %d calls", found, err, s.asked.Load())
	}
	do(t, "Withdraw", r.Withdraw)
	before := s.asked.Load()
	if found, err := r.Find(within(t)); err != nil || strings.Contains(found, "put back") || s.asked.Load() != before {
		t.Errorf("Find while leaving: %q, %v", found, err)
	}
	do(t, "Restore", r.Restore)
	s.answers.Store(&map[string]string{})
	if found, err := r.Find(within(t)); err != nil || strings.Contains(found, "put back") {
		t.Errorf("Find with nothing left: %q, %v", found, err)
	}
}

// Secrets are shown neither in the effective steps nor in errors.
func TestSecrets(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "you sent "+r.Header.Get("X-Vault-Token")+" and hunter3", http.StatusForbidden)
	})
	t.Setenv("VAULT_TOKEN", "hunter1")
	t.Setenv("ADMIN_PASSWORD", "hunter3")
	t.Setenv("ADDRESS", strings.Replace(url, "http://", "http://user:hunter2@", 1))
	r := fromYAML(t, drain.Pod{Name: "pod-0"}, `
headers: {X-Vault-Token: "${VAULT_TOKEN}", Authorization: Basic hunter4, X-Plain: seen}
withdraw:
- post: ${ADDRESS}/out/${LASTCALL_POD_NAME}
  body: password=${ADMIN_PASSWORD}
withdrawn:
- get: http://admin:hunter5@127.0.0.1/${LASTCALL_POD_NAME}?pretty=1&api_key=hunter6&b=2
  set: {id: x}
- get: ${ADDRESS}/${id}
`)
	shown := r.Steps()
	for _, want := range []string{"/out/pod-0", "password=***", "X-Vault-Token: '***'", "X-Plain: seen", "***@127.0.0.1", "?pretty=1&api_key=***&b=2", "${id}"} {
		if !strings.Contains(shown, want) && !strings.Contains(shown, strings.ReplaceAll(want, "'", `"`)) {
			t.Errorf("want %q in\n%s", want, shown)
		}
	}
	err := r.Withdraw(within(t))
	if err == nil || strings.Contains(shown+err.Error(), "hunter") {
		t.Errorf("a secret is shown: %v\n%s", err, shown)
	}
}

// An instance that find has never found is not located. Once found, it stays
// located.
func TestLocated(t *testing.T) {
	s := startScript(t, map[string]string{"get /pods": "{}", "post /out": ""})
	r := s.registry(t, `
find:
- get: URL/pods
  set: {id: pod.id}
  absent: [missing]
withdraw:
- post: URL/out
`)
	do(t, "Withdraw", r.Withdraw)
	if _, err := r.Find(within(t)); err == nil || !isWithdrawn(t, r) || r.Located() {
		t.Errorf("Find says %v, Located %v of an instance that is not known", err, r.Located())
	}
	s.answers.Store(&map[string]string{"get /pods": `{"pod":{"id":7}}`, "post /out": ""})
	do(t, "Withdraw", r.Withdraw)
	if !r.Located() {
		t.Error("Located returns false for an instance that was found")
	}
	s.answers.Store(&map[string]string{"get /pods": "{}", "post /out": ""})
	do(t, "Withdraw", r.Withdraw)
	if !r.Located() {
		t.Error("Located returns false for an instance that was found before")
	}

	r = s.registry(t, "withdraw:\n- post: URL/out")
	do(t, "Withdraw", r.Withdraw)
	if !r.Located() {
		t.Error("Located returns false although there is nothing to look up")
	}
}
