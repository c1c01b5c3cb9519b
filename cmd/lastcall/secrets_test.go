package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestEveryURL: every variable that holds a URL is checked, and what is wrong in
// it is not shown, neither in the error nor in the list of variables.
func TestEveryURL(t *testing.T) {
	known := plugins(everyPreset)
	urls := tagged(append([]any{&config{}}, known.settings()...), "secret", "url")
	if len(urls) < 7 {
		t.Fatalf("only %v hold URLs", urls)
	}
	for _, name := range urls {
		for _, bad := range []string{
			"http://127.0.0.1:99999/x", "http://:/x", "http://", "http://h:/hunter2", "http://h:0/x", "ftp://hunter2/x",
			"http://user:hunter2@", "http://user:hunter2@h:99999/", "http://user:hun/ter2@h", "http://user:1/ter2@h",
			"http://user:1#ter2@h", "http://%zz/hunter2", "unix://hunter2@/x", "unix:hunter2",
		} {
			environment(t, append(everything(), name+"="+bad)...)
			var out, problems bytes.Buffer
			code := run([]string{"config"}, &out, &problems)
			if code != exitBadInput || !strings.Contains(problems.String(), name) {
				t.Errorf("%s=%s: exit code %d, %s", name, bad, code, &problems)
			}
			if said := out.String() + problems.String(); strings.Contains(said, "hunter") || strings.Contains(said, "ter2") {
				t.Errorf("%s=%s is shown: %s", name, bad, linesWith(said, name))
			}
		}
	}
}

// linesWith returns the lines of text that hold a name.
func linesWith(text, name string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, name) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found, "\n")
}

// TestCommaInAPassword: it splits the list, and none of its parts is shown.
func TestCommaInAPassword(t *testing.T) {
	for _, url := range []string{
		"http://user:hun,ter2@eureka-0:8761/eureka", "http://user:1,ter2@eureka-0:8761/eureka",
		"http://eureka-1/eureka,http://user:1,hunter2@eureka-0:8761/eureka", "http://user:1,http://user:1,hunter2@eureka-0/eureka",
	} {
		environment(t, append(everything(), "LASTCALL_EUREKA_URLS="+url)...)
		var out, problems bytes.Buffer
		code := run([]string{"config"}, &out, &problems)
		if code != exitBadInput || !strings.Contains(problems.String(), "LASTCALL_EUREKA_URLS") || !strings.Contains(problems.String(), "percent-encoded") {
			t.Errorf("%s: exit code %d, %s", url, code, &problems)
		}
		if said := out.String() + problems.String(); strings.Contains(said, "hun") || strings.Contains(said, "ter2") || strings.Contains(said, "user:1") {
			t.Errorf("%s is shown: %s", url, linesWith(said, "LASTCALL_EUREKA_URLS"))
		}
	}
}

// TestSecretsAreMasked: secrets of a right configuration are not printed, and
// what is beside them is.
func TestSecretsAreMasked(t *testing.T) {
	environment(t, append(everything(),
		"LASTCALL_TOKEN=hunter2", "CONSUL_HTTP_TOKEN=hunter2", "CONSUL_HTTP_AUTH=user:hunter2",
		"LASTCALL_EUREKA_URLS=http://user:hunter2@eureka-0:8761/eureka,http://user:hunter2@eureka-1:8761/eureka",
		"LASTCALL_APP_READY_URL=http://user:hunter2@127.0.0.1:8081/ready?key=hunter2",
		"LASTCALL_ENVOY_ADMIN=http://user:hunter2@127.0.0.1:9901", "CONSUL_HTTP_ADDR=10.0.0.5:8500",
	)...)
	var out, problems bytes.Buffer
	if code := run([]string{"config"}, &out, &problems); code != exitOK || problems.Len() > 0 {
		t.Fatalf("exit code %d, %s", code, &problems)
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("a secret is shown:\n%s", &out)
	}
	for _, want := range []string{"***@eureka-0:8761/eureka,http://***@eureka-1", "http://***@127.0.0.1:8081/ready?***", "10.0.0.5:8500"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
}
