// Command pause keeps a pod's namespaces open until it gets SIGINT or SIGTERM. With
// shareProcessNamespace, it is the pod's process 1 and the parent of orphaned processes.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signal.Ignore(syscall.SIGCHLD) // makes the kernel reap ended children
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}
