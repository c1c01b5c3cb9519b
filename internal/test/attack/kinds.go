// Package attack calls a sidecar as hostile callers would, and at the same time as
// the kubelet does.
package attack

import "strings"

// Kind is what a hostile connection sends, and whether it then reads the answer.
type Kind struct {
	Name    string
	Send    string
	Reads   bool // if false, answers stay in the kernel's buffers
	Drains  bool // it begins a drain unless a token is required
	Endless bool // the last line of Send is repeated
	Narrow  bool // it receives as slowly as TCP allows
}

const host = " HTTP/1.1\r\nHost: pod\r\n"

// tiny returns as many headers as fit into n bytes. Of all requests of that length,
// these take the most memory when parsed.
func tiny(n int) string {
	var text strings.Builder
	for i := 0; text.Len() < n; i++ {
		text.WriteString(string([]byte{'a' + byte(i%26), 'a' + byte(i/26%26), 'a' + byte(i/676%26), ':', '\r', '\n'}))
	}
	return text.String()
}

// Kinds returns all kinds of hostile connections.
func Kinds() []Kind {
	big := "X-A: " + strings.Repeat("a", 12_000) + "\r\n"
	fits := "X-A: " + strings.Repeat("a", 7_000) + "\r\n"
	get := func(path, headers string) string { return "GET " + path + host + headers + "\r\n" }
	return []Kind{
		{Name: "silent connections", Reads: true},
		{Name: "headers that do not end", Send: "GET /readyz" + host + big, Reads: true},
		{Name: "many small headers that do not end", Send: "GET /readyz" + host + tiny(8_000), Reads: true},
		{Name: "slow headers", Send: "GET /readyz" + host + "X-A: b\r\n", Reads: true, Endless: true},
		{Name: "hooks with headers of 12 kB", Send: get("/prestop", big), Reads: true, Drains: true},
		{Name: "hooks with headers of 7 kB", Send: get("/prestop", fits), Reads: true, Drains: true},
		{Name: "hooks with many small headers", Send: get("/prestop", tiny(7_500)), Reads: true, Drains: true},
		{Name: "hooks that claim to be the kubelet's", Send: get("/prestop", "User-Agent: kube-lifecycle/1.34\r\n"+tiny(7_000)), Reads: true, Drains: true},
		{Name: "hooks with a long query", Send: get("/prestop?"+strings.Repeat("q", 7_000), ""), Reads: true, Drains: true},
		{Name: "hooks with a pipeline behind", Send: get("/prestop", "") + strings.Repeat(get("/metrics", ""), 500), Drains: true},
		{Name: "pipelined /metrics, not read", Send: strings.Repeat(get("/metrics", ""), 50)},
		{Name: "pipelined /metrics, read", Send: strings.Repeat(get("/metrics", ""), 50), Reads: true},
		{Name: "pipelined /status, not read", Send: strings.Repeat(get("/status", fits), 50)},
		{Name: "a pipeline that ends in many small headers", Send: get("/livez", "") + "GET /readyz" + host + tiny(8_000), Reads: true},
		{Name: "answers that are not taken", Send: get("/metrics", ""), Narrow: true},
		{Name: "long paths", Send: get("/"+strings.Repeat("p", 7_000), ""), Reads: true},
		{Name: "slow bodies", Send: "POST /drain" + host + "Content-Length: 4000\r\n\r\nx", Reads: true},
		{Name: "slow bodies behind many small headers", Send: "POST /drain" + host + tiny(7_400) + "Content-Length: 4000\r\n\r\nx", Reads: true},
		{Name: "bodies too large that do not come, behind many small headers", Send: "POST /drain" + host + tiny(7_400) + "Content-Length: 5000\r\n\r\nx", Reads: true},
		{Name: "slow bodies of OPTIONS *, behind many small headers", Send: "OPTIONS *" + host + tiny(7_400) + "Content-Length: 4000\r\n\r\nx", Reads: true},
		{Name: "endless chunks", Send: "POST /drain" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", Reads: true, Endless: true},
		{Name: "TLS", Send: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 509), Reads: true},
		{Name: "HTTP/2", Send: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", Reads: true},
		{Name: "garbage", Send: strings.Repeat("\xff\x00\r\n", 3_000), Reads: true},
	}
}
