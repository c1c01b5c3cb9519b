package servers

import "lastcall/internal/procnet"

// Sockets shows the kernel's sockets on the given local ports only. Tests of other
// packages run in the same network namespace, whereas a pod has its own.
type Sockets []int

// Listeners returns the given ports that have a listener.
func (s Sockets) Listeners() (map[int]bool, error) {
	all, err := procnet.Kernel().Listeners()
	ours := make(map[int]bool)
	for _, port := range s {
		if all[port] {
			ours[port] = true
		}
	}
	return ours, err
}

// Unfinished is Unfinished of procnet.Table.
func (s Sockets) Unfinished(port int) (map[string]bool, error) {
	return procnet.Kernel().Unfinished(port)
}
