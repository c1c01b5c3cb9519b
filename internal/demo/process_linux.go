package demo

import "syscall"

// apart puts a process into its own process group, so that a terminal's Ctrl-C
// reaches only the demo. The process is killed when the demo ends, even if the demo
// is killed.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
