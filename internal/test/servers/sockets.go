package servers

import "lastcall/internal/procnet"

// Sockets shows the kernel's sockets on the given local ports only: the tests
// of other packages run in the same network namespace, which a pod has for
// itself.
type Sockets []int

// Listeners returns those of the ports that somebody listens on.
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

// Unfinished is procnet.Table's.
func (s Sockets) Unfinished(port int) (map[string]bool, error) {
	return procnet.Kernel().Unfinished(port)
}
