//go:build linux

package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lastcall/internal/test/servers"
)

// baseImage stands in for golang:1.26, so that the build needs no network.
const baseImage = "localhost/go-base"

// builder runs buildah with its own storage, which is removed after the test.
type builder struct {
	t       *testing.T
	buildah string
	dir     string
}

func newBuilder(t *testing.T) *builder {
	t.Helper()
	for _, file := range []string{"Dockerfile", ".dockerignore", "go.mod", "go.sum", "admission/go.mod", "admission/go.sum"} {
		if !exists(filepath.Join(project, file)) {
			t.Fatalf("%s is not in the project", file)
		}
	}
	b := &builder{t: t, buildah: servers.Need(t, "buildah"), dir: t.TempDir()}
	t.Cleanup(func() {
		b.run("rmi", "--all", "--force")
		if os.Geteuid() != 0 {
			// The storage contains files of other users of buildah's user
			// namespace.
			b.run("unshare", "rm", "-rf", b.path("storage"))
		}
	})
	return b
}

func (b *builder) path(name string) string { return filepath.Join(b.dir, name) }

// run runs one buildah command and returns the last line that it printed.
func (b *builder) run(args ...string) string {
	b.t.Helper()
	cmd := exec.Command(b.buildah, append([]string{
		"--root", b.path("storage"),
		"--runroot", b.path("run"),
		// The simplest driver: it works in a container and for any user.
		"--storage-driver", "vfs",
	}, args...)...)
	// Build steps run in a chroot: CI often runs in a container, where a container
	// runtime may be unable to start another container.
	cmd.Env = append(os.Environ(), "BUILDAH_ISOLATION=chroot")
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("buildah %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// base makes the base image. It has folders to mount this machine's Go and tools
// at, and its trusted roots, which the Dockerfile copies.
func (b *builder) base() {
	b.t.Helper()
	root := b.path("base")
	for _, dir := range []string{"usr", "go/root", "go/modules", "go/cache", "tmp", "etc/ssl/certs"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	for _, dir := range systemFolders {
		var err error
		switch target, linkErr := os.Readlink("/" + dir); {
		case linkErr == nil:
			err = os.Symlink(target, filepath.Join(root, dir))
		case exists("/" + dir):
			err = os.Mkdir(filepath.Join(root, dir), 0o755)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	pem, err := os.ReadFile(roots)
	if err != nil {
		b.t.Fatalf("this machine's trusted roots: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, roots), pem, 0o644); err != nil {
		b.t.Fatal(err)
	}

	container := b.run("from", "scratch")
	b.run("copy", "--quiet", container, root, "/")
	b.run("config",
		"--env", "PATH=/go/root/bin:/usr/bin:/bin",
		"--env", "HOME=/tmp",
		"--env", "GOTOOLCHAIN=local",
		"--env", "GOPROXY=off", // all modules are in the mounted cache
		"--env", "GOMODCACHE=/go/modules",
		"--env", "GOCACHE=/go/cache",
		container)
	b.run("commit", "--quiet", container, baseImage)
	b.run("rm", container)
}

// systemFolders contain the shell and its libraries; on current systems most are
// links into /usr.
var systemFolders = []string{"bin", "lib", "lib64"}

// project is the folder that holds the Dockerfile.
var project = filepath.Join("..", "..", "..")

// build builds the project's Dockerfile, or a target of it, and returns the image's
// id.
func (b *builder) build(target string) string {
	b.t.Helper()
	args := []string{
		"build", "--quiet", "--no-cache", "--pull-never",
		"--timestamp", "0", // `make image` sets the commit's time
		"--build-arg", "GO_IMAGE=" + baseImage,
		"--build-arg", "VERSION=" + version,
		"--build-arg", "COMMIT=" + commit,
		"--volume", "/usr:/usr:ro",
		"--volume", goEnv(b.t, "GOROOT") + ":/go/root:ro",
		"--volume", goEnv(b.t, "GOMODCACHE") + ":/go/modules:ro",
		"--volume", goEnv(b.t, "GOCACHE") + ":/go/cache",
	}
	for _, dir := range systemFolders {
		if _, err := os.Readlink("/" + dir); err != nil && exists("/"+dir) {
			args = append(args, "--volume", "/"+dir+":/"+dir+":ro")
		}
	}
	if target != "" {
		args = append(args, "--target", target)
	}
	return b.run(append(args, project)...)
}

// export writes the image to a folder in the OCI layout, and returns the folder.
func (b *builder) export(id string) string {
	b.t.Helper()
	layout := b.path("layout")
	b.run("push", "--quiet", id, "oci:"+layout)
	return layout
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatalf("go env %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
