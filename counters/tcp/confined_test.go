package tcp

import (
	"bytes"
	"context"
	"encoding/json"
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
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"lastcall/drain"
)

// confined is what a process without rights has seen.
type confined struct {
	UID       int
	Caps      string // what it may, of all that a process may
	Readings  []drain.Reading
	Listening bool
	Told      bool // the end of a connection was told by the kernel
	Log       string
	Err       string
}

// nobodyID is the user of the image.
const nobodyID = 65532

// countAsProgram gives up all rights, counts, and prints what it saw as JSON.
// Its arguments are the app's port and, where netlink is to be refused,
// "refused".
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
	if err := giveUpRights(len(args) > 1); err != nil {
		return err
	}
	seen.UID = os.Getuid()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		for _, set := range []string{"CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "NoNewPrivs:", "Seccomp:"} {
			if strings.HasPrefix(line, set) {
				seen.Caps += strings.Join(strings.Fields(line), "") + " "
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := New(Config{Count: Requests, Silence: time.Hour}, port)
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

// giveUpRights makes the process one of an ordinary container: another user,
// no capability, nothing to be gained by starting a program.
func giveUpRights(refuseNetlink bool) error {
	runtime.LockOSThread() // what follows is said of a thread, and then of all
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
	// As a seccomp profile does: struct seccomp_data begins with the call's
	// number, and its first argument is at 16.
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

// runConfined has a process without rights look at the app.
func runConfined(t *testing.T, a *app, args ...string) confined {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, append([]string{strconv.Itoa(a.port)}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=count")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var seen confined
	if err := json.Unmarshal(out, &seen); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%+v", seen)
	none := strings.Repeat("0", 16)
	want := fmt.Sprintf("CapInh:%[1]s CapPrm:%[1]s CapEff:%[1]s CapAmb:%[1]s NoNewPrivs:1 Seccomp:2 ", none)
	if seen.UID == 0 || seen.Caps != want || seen.Err != "" || !seen.Listening || len(seen.Readings) != 3 {
		t.Fatalf("got %+v", seen)
	}
	return seen
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
	seen := runConfined(t, busyApp(t))
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
	seen := runConfined(t, busyApp(t), "refused")
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
