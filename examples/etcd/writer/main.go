// Steady load of writes on URL, by etcd's JSON gateway. SIGTERM ends it; requests
// on their way are finished, and then counted.
package main

import (
	"os"

	"lastcall/examples/load"
)

func main() {
	url := os.Getenv("URL") + "/v3/kv/put"
	// A key and a value, as the gateway has them: in base64.
	(&load.Load{Workers: 4, Body: `{"key":"a2V5","value":"dmFsdWU="}`, Target: func() string { return url }}).Main()
}
