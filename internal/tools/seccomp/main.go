// Seccomp prints the seccomp profile that containerd gives to containers with
// "seccompProfile: {type: RuntimeDefault}" in Kubernetes, for this machine's
// architecture and a container without capabilities.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func main() {
	profile := seccomp.DefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}},
		Linux:   &specs.Linux{},
	})
	if err := json.NewEncoder(os.Stdout).Encode(profile); err != nil {
		fmt.Fprintln(os.Stderr, "printing the profile:", err)
		os.Exit(1)
	}
}
