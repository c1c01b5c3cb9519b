// A client with a steady load on URL, for example a Service's. SIGTERM ends the
// load; open requests are finished and counted.
package main

import (
	"os"

	"lastcall/examples/load"
)

func main() {
	url := os.Getenv("URL")
	(&load.Load{Workers: 12, Target: func() string { return url }}).Main()
}
