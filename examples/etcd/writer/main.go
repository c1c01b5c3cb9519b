// A client with a steady load of writes to URL, etcd's JSON gateway. SIGTERM ends
// the load; open requests are finished and counted.
package main

import (
	"os"

	"lastcall/examples/load"
)

func main() {
	url := os.Getenv("URL") + "/v3/kv/put"
	// A key and a value in base64, as the gateway requires.
	(&load.Load{Workers: 4, Body: `{"key":"a2V5","value":"dmFsdWU="}`, Target: func() string { return url }}).Main()
}
