//go:build linux

package image

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// writeSpec writes dir/config.json, which configures runc: the process runs as the
// image's user, without capabilities, on a read-only root file system. It uses this
// machine's network, so that the test can reach the container on the loopback
// address.
func writeSpec(t *testing.T, dir string, image *image, env, args []string) {
	t.Helper()
	uid, gid := user(t, image)
	if os.Geteuid() != 0 {
		uid, gid = 0, 0 // the only user of the namespace: the user of the test
	}
	type object = map[string]any
	spec, err := json.Marshal(object{
		"ociVersion": "1.0.2",
		"root":       object{"path": image.rootfs, "readonly": true},
		"process": object{
			"user":            object{"uid": uid, "gid": gid},
			"args":            append(image.config.Entrypoint, args...),
			"env":             append(image.config.Env, env...),
			"cwd":             "/",
			"capabilities":    object{},
			"noNewPrivileges": true,
		},
		"mounts": []object{{"destination": "/proc", "type": "proc", "source": "proc"}},
		"linux": object{
			"namespaces": []object{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), spec, 0o600); err != nil {
		t.Fatal(err)
	}
}

// user returns the user and group ids in the image's USER.
func user(t *testing.T, image *image) (uid, gid int) {
	t.Helper()
	u, g, _ := strings.Cut(image.config.User, ":")
	uid, err := strconv.Atoi(u)
	if err != nil {
		t.Fatalf("the image's user is %q, not two numbers", image.config.User)
	}
	gid, err = strconv.Atoi(g)
	if err != nil {
		t.Fatalf("the image's user is %q, not two numbers", image.config.User)
	}
	return uid, gid
}
