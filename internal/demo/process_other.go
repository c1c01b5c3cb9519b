//go:build unix && !linux

package demo

import "syscall"

// apart puts a process into a group of its own, so that a terminal's Ctrl-C
// reaches the demo alone.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
