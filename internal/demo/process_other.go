//go:build unix && !linux

package demo

import "syscall"

// apart puts a process into its own process group, so that a terminal's Ctrl-C
// reaches only the demo.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
