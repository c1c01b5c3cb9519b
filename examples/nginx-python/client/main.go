// Steady load on URL, such as a Service's. SIGTERM ends it; requests on their
// way are finished, and then counted.
package main

import (
	"os"

	"lastcall/examples/load"
)

func main() {
	url := os.Getenv("URL")
	(&load.Load{Workers: 12, Target: func() string { return url }}).Main()
}
