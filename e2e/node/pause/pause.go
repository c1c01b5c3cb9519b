// Command pause holds a pod's namespaces open until it is told to stop. With
// shareProcessNamespace it is the pod's process 1, and the parent of orphans.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signal.Ignore(syscall.SIGCHLD) // the kernel then buries ended children itself
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}
