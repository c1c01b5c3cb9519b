package steps

import (
	"strings"
	"testing"

	"lastcall/drain"
)

// All mistakes in a file are reported at once, each with its line and what
// would be correct.
func TestMistakes(t *testing.T) {
	t.Setenv("TARGET", "http://127.0.0.1:1")
	for _, test := range []struct {
		name, yaml string
		want       []string
	}{
		{"key", "withdrw:\n- get: http://a/", []string{`:1: "withdrw" is not a key of the file: is withdraw meant?`}},
		{"step's key", "withdraw:\n- get: http://a/\n  contain: x", []string{`:3: "contain" is not a key of a step of withdraw: is contains meant?`}},
		{"foreign key", "withdraw:\n- get: http://a/\n  not_yet: [200]", []string{`:3: "not_yet" is not a key of a step of withdraw`}},
		{"twice", "withdraw:\n- get: http://a/\n  get: http://b/", []string{":3: get is there twice"}},
		{"two calls", "withdraw:\n- get: http://a/\n  put: http://b/", []string{"two calls, get and put"}},
		{"no call", "withdraw:\n- contains: x", []string{":2: a step of withdraw has no call"}},
		{"no list", "withdraw:\n  get: http://a/", []string{":2: withdraw must be a list"}},
		{"no mapping", "withdraw:\n- http://a/", []string{":2: a step of withdraw must be a mapping"}},
		{"nothing", "", []string{"must be a mapping"}},
		{"nothing to do", "restore:\n- get: http://a/", []string{"neither withdraw nor withdrawn"}},
		{"syntax", "withdraw:\n- get: [", []string{"is not YAML"}},
		{"two documents", "withdraw:\n- get: http://a/\n---\nwithdraw: []", []string{"second document"}},
		{"path without servers", "withdraw:\n- get: /x", []string{":2:", "needs servers"}},
		{"address", "withdraw:\n- get: ftp://user:secret@a/", []string{"must be an http:// or https:// URL"}},
		{"body of a get", "withdraw:\n- get: http://a/\n  body: x", []string{":3: a get has no body"}},
		{"body as a mapping", "withdraw:\n- post: http://a/\n  body: {a: 1}", []string{":3: body must be a text, in quotes"}},
		{"code", "withdraw:\n- post: http://a/\n  ok: [20]", []string{`:3: ok: "20" must be an HTTP status code`}},
		{"code of done", "withdraw:\n- post: http://a/\n  done: [exists]", []string{`done: "exists" must be an HTTP status code`}},
		{"missing without set", "find:\n- get: http://a/\n  absent: [missing]\nwithdraw:\n- get: http://a/", []string{":3: missing is for steps with set"}},
		{"when", "withdrawn:\n- get: http://a/\n  when: a.b", []string{":3:", "PATH OPERATOR VALUE"}},
		{"when without spaces", "withdrawn:\n- get: http://a/\n  when: a==1", []string{"with spaces around the operator"}},
		{"when without a value", "withdrawn:\n- get: http://a/\n  when: 'a == '", []string{`its value is missing`}},
		{"number", "withdrawn:\n- get: http://a/\n  number: 'x (.*) (.*) == 0'", []string{"has 2 groups"}},
		{"regexp", "withdrawn:\n- get: http://a/\n  number: 'x ((\\d) == 0'", []string{"the regular expression is wrong"}},
		{"empty contains", "withdrawn:\n- get: http://a/\n  contains: ''", []string{"must not be empty"}},
		{"empty outcome", "withdraw:\n- get: http://a/\n  done: [{because: x}]", []string{"needs a code, or a condition"}},
		{"variable", "withdraw:\n- get: http://a/${STORE}", []string{":2: get: ${STORE} is neither set in the environment"}},
		{"variable's form", "withdraw:\n- get: http://a/${STORE", []string{"write a variable as ${NAME}"}},
		{"variable of find", "find:\n- get: http://a/\n  set: {store: id}\nwithdraw:\n- get: http://a/${stor}", []string{":5:", "is store meant?"}},
		{"variable of another section", "withdraw:\n- get: http://a/\n  set: {x: id}\nrestore:\n- get: http://a/${x}", []string{":5: get: ${x} is neither"}},
		{"pod's name", "withdraw:\n- get: http://a/${LASTCALL_POD_NAME}", []string{"set it by the downward API"}},
		{"set", "find:\n- get: http://a/\n  set: {a-b: id, LASTCALL_POD_IP: ip}\nwithdraw:\n- get: http://a/", []string{`"a-b" cannot be the name`, "LASTCALL_POD_IP is a variable of lastcall"}},
		{"header", "headers: {'a b': c}\nwithdraw:\n- get: http://a/", []string{`"a b" cannot be the name of a header`}},
		{"half a pair", "tls: {cert: /x}\nwithdraw:\n- get: http://a/", []string{"tls has one of cert and key"}},
		{"no CA", "tls: {ca: /not/there}\nwithdraw:\n- get: http://a/", []string{"tls.ca", "no such file"}},
		{"listed", "listed: 0\nwithdraw:\n- get: http://a/", []string{`:1: listed: "0" must be true or false`}},
		{"listed's key", "listed:\n- get: http://a/\n  never: [404]\nwithdraw:\n- get: http://a/", []string{`:3: "never" is not a key of a step of listed`}},
		{"insecure", "tls: {insecure: maybe}\nwithdraw:\n- get: http://a/", []string{"must be true or false"}},
		{"timeout", "timeout: 1h\nwithdraw:\n- get: http://a/", []string{":1: timeout:", "from 100ms to 5s"}},
		{"no token", "token_file: /not/there\nwithdraw:\n- get: http://a/", []string{"token_file", "no such file"}},
		{"token", "token_header: X\nwithdraw:\n- get: http://a/", []string{"token_header needs token_file"}},
		{"leftover", "withdraw:\n- get: http://a/\nleftover:\n- get: http://a/", []string{"leftover needs restore"}},
		{"servers", "servers: http:/a\nwithdraw:\n- get: /x", []string{"must be an http:// or https:// URL"}},
		{"all at once", "withdrw: []\nwithdraw:\n- get: http://a/\n  ok: x\n- contains: y\nrestore:\n- post: /x", []string{":1:", ":4:", ":5:", ":7:"}},
		{"preset's key", "preset: {}\nwithdraw:\n- get: http://a/", []string{`"preset" is not a key`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := newFrom(t, drain.Pod{}, test.yaml)
			if err == nil {
				t.Fatal("the file is accepted")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v\nwant %q in it", err, want)
				}
			}
			if strings.Contains(err.Error(), "secret@") {
				t.Errorf("%v shows a password", err)
			}
		})
	}
}

func TestGoodFiles(t *testing.T) {
	t.Setenv("TARGET", "http://127.0.0.1:1")
	for _, yaml := range []string{
		"withdraw:\n- post: ${TARGET}/out\n  done: 404\nrestore:\n", // a scalar for a list, an empty section
		"withdrawn:\n- get: http://a/\n  contains: [a, b]\n  lacks: c",
		"base: &b [404]\n", // refused below: base is not a key
		"withdraw:\n- get: http://a/${NOT_SET:-x}\n  done: [{code: [404, 409]}, refused, {code: 500, contains: known}]",
		"withdraw:\n- get: http://a/\n  done: &codes [404]\nrestore:\n- get: http://a/\n  done: *codes",
	} {
		_, err := newFrom(t, drain.Pod{}, yaml)
		if refused := strings.HasPrefix(yaml, "base"); (err != nil) != refused {
			t.Errorf("%s: %v", yaml, err)
		}
	}
}

func TestFileLimits(t *testing.T) {
	if _, err := newFrom(t, drain.Pod{}, "withdraw:\n"+strings.Repeat("- get: http://a/\n", maxSteps+1)); err == nil || !strings.Contains(err.Error(), "at most 50") {
		t.Errorf("too many steps: %v", err)
	}
	if _, err := newFrom(t, drain.Pod{}, strings.Repeat("#", maxFile+1)); err == nil || !strings.Contains(err.Error(), "longer than 256 KiB") {
		t.Errorf("too long a file: %v", err)
	}
	if _, err := New(Config{File: "/not/there", ClientRefresh: -1}, drain.Pod{}); err == nil || !strings.Contains(err.Error(), "LASTCALL_STEPS_FILE") || !strings.Contains(err.Error(), "CLIENT_REFRESH") {
		t.Errorf("no file: %v", err)
	}
}
