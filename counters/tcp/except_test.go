package tcp

import "lastcall/counters/countertest"

// Except returns the rows of the suite that do not apply to the kernel's
// sockets.
func (h *harness) Except() map[countertest.Row]string {
	return map[countertest.Row]string{
		countertest.Missing: "the kernel's tables hold every socket, or cannot be read, which Break tries",
		countertest.Stale:   "the kernel is asked at each reading, and keeps no earlier answer",
	}
}

// Except returns the rows that do not apply if netlink is refused: those above,
// and arrivals.
func (f *fallback) Except() map[countertest.Row]string {
	except := (*harness)(nil).Except()
	except[countertest.Arrivals] = "/proc/net/tcp does not tell that a request has come and gone"
	return except
}
