package demo

import "syscall"

// apart puts a process into a group of its own, so that a terminal's Ctrl-C
// reaches the demo alone, and ends it with the demo even if that is killed.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
