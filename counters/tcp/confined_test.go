package tcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"lastcall/drain"
	"lastcall/internal/test/wait"
)

// confined is what a process without privileges has seen.
type confined struct {
	UID       int
	Caps      string // its privileges, of all that a process can have
	ReadOnly  bool   // it cannot write to the root file system
	NoKeys    bool   // the kernel's keyrings are refused, as container profiles do
	Readings  []drain.Reading
	Listening bool
	Told      bool // the kernel has reported the end of a connection
	Log       string
	Err       string
}

// nobodyID is the user id of the image.
const nobodyID = 65532

// The second argument of a process without privileges, after the app's port.
const (
	giveUp         = "give-up"   // it must drop its privileges itself
	netlinkRefused = "refused"   // it must also refuse itself the use of netlink
	contained      = "contained" // it has no privileges already
)

// countAsProgram counts without any privileges, and prints what it saw as JSON.
func countAsProgram(args []string) {
	var seen confined
	if err := seen.look(args); err != nil {
		seen.Err = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(seen); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (seen *confined) look(args []string) error {
	var log bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer func() { seen.Log = log.String() }()
	port, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if how := args[1]; how != contained {
		if err := giveUpRights(how == netlinkRefused); err != nil {
			return err
		}
	}
	seen.UID = os.Getuid()
	_, err = unix.KeyctlGetKeyringID(unix.KEY_SPEC_PROCESS_KEYRING, true)
	seen.NoKeys = errors.Is(err, unix.EPERM)
	seen.ReadOnly = errors.Is(os.WriteFile("/file", nil, 0o600), unix.EROFS)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		for _, set := range []string{"CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"} {
			if strings.HasPrefix(line, set) {
				seen.Caps += strings.Join(strings.Fields(line), "") + " "
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	c, err := New(Config{Count: Requests, Silence: Silence{}}, port)
	if err != nil {
		return err
	}
	for range 3 {
		r, err := c.Count(ctx)
		if err != nil {
			return err
		}
		seen.Readings = append(seen.Readings, r)
	}
	if seen.Listening, err = NewApp(port).Listening(ctx); err != nil {
		return err
	}
	look := make(chan struct{}, 1)
	if err := c.watchEnds(ctx, look); err == nil {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err != nil {
			return err
		}
		resp.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		select {
		case <-look:
			seen.Told = true
		case <-ctx.Done():
		}
	}
	return nil
}

// giveUpRights makes the process like that of an ordinary container: another
// user, no capability, and no privileges from starting a program.
func giveUpRights(refuseNetlink bool) error {
	runtime.LockOSThread() // what follows applies to a thread first, and then to all
	if os.Getuid() == 0 {
		if err := syscall.Setgroups(nil); err != nil {
			return fmt.Errorf("groups: %w", err)
		}
		if err := syscall.Setgid(nobodyID); err != nil {
			return fmt.Errorf("group: %w", err)
		}
		if err := syscall.Setuid(nobodyID); err != nil {
			return fmt.Errorf("user: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	// This is like a seccomp profile. struct seccomp_data begins with the
	// number of the system call, and its first argument is at offset 16.
	refuse := uint32(unix.SECCOMP_RET_ALLOW)
	if refuseNetlink {
		refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	}
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_SOCKET, SkipTrue: 3},
		bpf.LoadAbsolute{Off: 16, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_NETLINK, SkipTrue: 1},
		bpf.RetConstant{Val: refuse},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
	})
	if err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// runConfined runs a process without privileges that checks the app.
func runConfined(t *testing.T, a *app, how string) confined {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testBinary(t), strconv.Itoa(a.port), how)
	cmd.Env = append(os.Environ(), asProgram+"=count")
	return seenBy(t, cmd)
}

// seenBy runs the process, and checks that it has no privileges.
func seenBy(t *testing.T, cmd *exec.Cmd) confined {
	t.Helper()
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, problems.String())
	}
	var seen confined
	if err := json.Unmarshal(out, &seen); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%+v", seen)
	none := strings.Repeat("0", 16)
	for _, part := range []string{"CapInh:" + none, "CapPrm:" + none, "CapEff:" + none, "CapAmb:" + none, "NoNewPrivs:1", "Seccomp:2"} {
		if !strings.Contains(seen.Caps, part+" ") {
			t.Errorf("the process has %s, want %s", seen.Caps, part)
		}
	}
	if seen.Err != "" || !seen.Listening || len(seen.Readings) != 3 {
		t.Fatalf("got %+v", seen)
	}
	return seen
}

func testBinary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

// busyApp is an app with a slow request and an idle connection.
func busyApp(t *testing.T) *app {
	t.Helper()
	a := startGo(t)
	idle := a.connect(t)
	idle.get(t, "/")
	idle.answer(t, http.StatusOK)
	a.hold(t, a.connect(t))
	becomes(t, a.settled(t), 1, readable)
	return a
}

func TestNoRightsAreNeeded(t *testing.T) {
	seen := runConfined(t, busyApp(t), giveUp)
	if seen.UID == 0 {
		t.Error("it is root")
	}
	seen.countsAll(t)
}

// countsAll checks that the process has seen everything.
func (seen *confined) countsAll(t *testing.T) {
	t.Helper()
	for _, r := range seen.Readings {
		if r.InFlight != 1 || !r.HasArrived {
			t.Errorf("got %+v, want 1 in flight", r)
		}
	}
	if !seen.Told {
		t.Error("the end of a connection was not told")
	}
	if seen.Log != "" {
		t.Errorf("it has logged %s", seen.Log)
	}
}

func TestNetlinkRefused(t *testing.T) {
	seen := runConfined(t, busyApp(t), netlinkRefused)
	for _, r := range seen.Readings {
		if r != (drain.Reading{InFlight: 2}) {
			t.Errorf("got %+v, want 2 in flight: the idle one cannot be told from the busy one", r)
		}
	}
	if seen.Told {
		t.Error("netlink was not refused")
	}
	if n := strings.Count(seen.Log, "diagnostics are refused"); n != 1 || !strings.Contains(seen.Log, "level=WARN") {
		t.Errorf("it has said it %d times, want once: %s", n, seen.Log)
	}
}
