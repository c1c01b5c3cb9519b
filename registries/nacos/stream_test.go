package nacos

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestScan(t *testing.T) {
	t.Parallel()
	const one = `{"ip":"10.0.0.1","port":8080,"enabled":true,"metadata":{"data":"x"},"more":[{"hosts":[1]}]}`
	for _, test := range []struct {
		name, body string
		hosts      int
		want       listing
		err        string
	}{
		{"v1", `{"name":"a","metadata":{"hosts":["x"]},"hosts":[` + one + `,` + one + `],"reachProtectionThreshold":true}`, 2, listing{found: true, protected: true}, ""},
		{"v2", `{"code":0,"message":"success","data":{"clusters":"","hosts":[` + one + `]}}`, 1, listing{found: true, message: "success"}, ""},
		{"v3", `{"code":0,"message":"success","data":[` + one + `]}`, 1, listing{found: true, message: "success"}, ""},
		{"none", `{"hosts":[]}`, 0, listing{found: true}, ""},
		{"a failure", `{"code":21008,"message":"no service","data":null}`, 0, listing{code: 21008, message: "no service"}, ""},
		{"no list", `{"status":"UP"}`, 0, listing{}, ""},
		{"deep", strings.Repeat(`{"data":`, 100000), 0, listing{}, "EOF"},
		{"nothing", "", 0, listing{}, "it is empty"},
		{"a list", "[]", 0, listing{}, "it is no object"},
		{"a page", "<html>", 0, listing{}, "invalid character"},
		{"cut off", `{"hosts":[` + one + `,{"ip":"10.`, 1, listing{found: true}, "EOF"},
	} {
		hosts := 0
		got, err := scan(strings.NewReader(test.body), func(h host) {
			if !h.available() || h.Port != 8080 || h.IP != "10.0.0.1" {
				t.Errorf("%s: read %+v", test.name, h)
			}
			hosts++
		})
		if got.size > len(test.body) {
			t.Errorf("%s: %d bytes of %d", test.name, got.size, len(test.body))
		}
		got.size = 0
		if got != test.want || hosts != test.hosts || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %+v with %d instances, %v", test.name, got, hosts, err)
		}
	}
}

// A list with more instances than any service has is not read endlessly, nor is
// a large value that is not a list of instances.
func TestScanIsBounded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ begin, again, want string }{
		{`{"hosts":[{}`, `,{"ip":"` + strings.Repeat("x", 1000) + `"}`, "longer than 64 MiB"},
		{`{"name":"`, strings.Repeat("x", 1000), "that is no list of instances"},
		{`{"hosts":[{"ip":"`, strings.Repeat("x", 1000), "that is no list of instances"},
		{`{"x":[`, strings.Repeat("1,", 1000), "that is no list of instances"},
	} {
		r, w := io.Pipe()
		go func() {
			_, err := io.WriteString(w, test.begin)
			for err == nil {
				_, err = io.WriteString(w, test.again)
			}
		}()
		_, err := scan(r, func(host) {})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.20s: got %v, want %q", test.begin, err, test.want)
		}
		_ = r.Close()
	}
}

func FuzzScan(f *testing.F) {
	f.Add(`{"code":0,"data":{"hosts":[{"ip":"10.0.0.1","port":8080,"metadata":{"a":"b"}}]}}`)
	f.Add(`{"data":[{"weight":1e3}],"hosts":{}}`)
	f.Fuzz(func(t *testing.T, body string) {
		hosts := 0
		got, err := scan(strings.NewReader(body), func(host) { hosts++ })
		if err == nil && hosts > 0 && !got.found {
			t.Errorf("%d instances, and no list", hosts)
		}
	})
}

// A service of 5,000 instances is read as Withdrawn reads it at each server.
func BenchmarkLargeService(b *testing.B) {
	var body strings.Builder
	body.WriteString(`{"code":0,"message":"success","data":[`)
	for n := range 5000 {
		if n > 0 {
			body.WriteString(",")
		}
		fmt.Fprintf(&body, `{"instanceId":"10.0.%d.%d#8080#DEFAULT#DEFAULT_GROUP@@orders","ip":"10.0.%[1]d.%[2]d","port":8080,"weight":1.0,"healthy":true,"enabled":true,"ephemeral":true,"clusterName":"DEFAULT","serviceName":"DEFAULT_GROUP@@orders","metadata":{"preserved.register.source":"SPRING_CLOUD","version":"1"},"instanceHeartBeatInterval":5000,"instanceHeartBeatTimeOut":15000,"ipDeleteTimeout":30000}`, n/250, n%250)
	}
	body.WriteString("]}")
	b.ReportAllocs()
	b.SetBytes(int64(body.Len()))
	for b.Loop() {
		hosts := 0
		if _, err := scan(strings.NewReader(body.String()), func(host) { hosts++ }); err != nil || hosts != 5000 {
			b.Fatal(hosts, err)
		}
	}
}
