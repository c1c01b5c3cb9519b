package tcp

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"lastcall/internal/test/servers"
)

// A container as Kubernetes makes one at the Pod Security level "restricted",
// with a read-only root file system: its own user, no capability, and the
// seccomp profile RuntimeDefault, which is containerd's.
func TestContainerWithRuntimeDefaultSeccomp(t *testing.T) {
	a := busyApp(t)
	runc, bundle, root := servers.Need(t, "runc"), t.TempDir(), t.TempDir()
	uid := nobodyID
	if os.Geteuid() != 0 {
		uid = 0 // in a user namespace without other users
	}
	writeJSON(t, filepath.Join(bundle, "config.json"), object{
		"ociVersion": "1.0.2",
		"root":       object{"path": root, "readonly": true},
		"process": object{
			"user":            object{"uid": uid, "gid": uid},
			"args":            []string{"/program", strconv.Itoa(a.port), contained},
			"env":             []string{asProgram + "=count"},
			"cwd":             "/",
			"capabilities":    object{},
			"noNewPrivileges": true,
		},
		"mounts": append(libraries(),
			object{"destination": "/proc", "type": "proc", "source": "proc"},
			object{"destination": "/program", "type": "bind", "source": testBinary(t), "options": []string{"bind", "ro"}}),
		"linux": object{
			// The network is shared with the app, as in a pod.
			"namespaces": []object{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}},
			"seccomp":    runtimeDefault(t),
		},
	})
	id := fmt.Sprintf("lastcall-tcp-%d", os.Getpid())
	cmd := exec.CommandContext(t.Context(), runc, "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, id)
	cmd.SysProcAttr = namespaces()
	seen := seenBy(t, cmd)
	if seen.UID != uid || !seen.ReadOnly || !seen.NoKeys || !strings.Contains(seen.Caps, "CapBnd:"+strings.Repeat("0", 16)) {
		t.Errorf("the container is not confined as it should be: %+v", seen)
	}
	seen.countsAll(t)
}

type object = map[string]any

// libraries mounts the directories that contain the libraries of the test's own
// program, which is not static.
func libraries() []object {
	var mounts []object
	for _, dir := range []string{"/usr", "/lib", "/lib64"} {
		if source, err := filepath.EvalSymlinks(dir); err == nil {
			mounts = append(mounts, object{"destination": dir, "type": "bind", "source": source, "options": []string{"rbind", "ro"}})
		}
	}
	return mounts
}

// runtimeDefault returns containerd's profile for this machine.
func runtimeDefault(t *testing.T) json.RawMessage {
	t.Helper()
	const tool = "../../internal/tools/seccomp"
	if _, err := os.ReadDir(tool); err != nil { // go test records this dependency
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "-C", tool, ".")
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOFLAGS=-mod=readonly -trimpath -gcflags=all=-dwarf=false") // as in internal/test/servers/install
	var problems strings.Builder
	cmd.Stderr = &problems
	profile, err := cmd.Output()
	if err != nil {
		t.Fatalf("printing containerd's profile: %v\n%s", err, problems.String())
	}
	return profile
}

func writeJSON(t *testing.T, name string, value any) {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// namespaces lets an ordinary user run a container as root of a user namespace;
// that root is the user itself. For root, namespaces returns nil.
func namespaces() *syscall.SysProcAttr {
	if os.Geteuid() == 0 {
		return nil
	}
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
}
