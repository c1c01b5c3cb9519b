// Command lastcall-admission is the cluster side of Lastcall: an admission webhook
// that adds the sidecar to pods, and a command that checks manifests.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// version is set by the linker.
var version = "dev"

const usage = `usage: lastcall-admission COMMAND

  serve                 answers the API server's admission webhooks
  check FILE|FOLDER|-…  lists what would lose requests in manifests
  version               prints the version

lastcall-admission COMMAND -h lists the flags of a command.
`

// Exit codes.
const (
	good     = 0
	findings = 1 // check has findings, or serve could not start or has failed
	misused  = 2 // wrong flags, or files that cannot be read
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return misused
	}
	switch command, rest := args[0], args[1:]; command {
	case "serve":
		return serve(ctx, rest, stderr)
	case "check":
		return checkFiles(rest, stdin, stdout, stderr)
	case "version":
		fmt.Fprintf(stdout, "lastcall-admission %s, %s\n", version, runtime.Version())
		return good
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return good
	default:
		fmt.Fprintf(stderr, "lastcall-admission: unknown command %q\n%s", command, usage)
		return misused
	}
}
