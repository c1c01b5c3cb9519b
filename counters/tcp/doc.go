// Package tcp counts the work in flight in an app that reports nothing itself.
// It uses what the kernel reports about the app's connections, which is visible
// to the sidecar because the containers of a pod share one network namespace.
//
// It asks the kernel's socket diagnostics (sock_diag, over netlink) only for
// the connections on the app's ports. No privilege is needed for that.
//
// # What counts
//
// A connection counts while
//
//   - data waits to be read by the app, or to be received by the client;
//   - a request was received after everything that was sent, and waits for its answer;
//   - or it is in doubt: see below.
//
// These do not count: a connection on which nothing was ever received, one that
// was certainly answered, one that the app has closed and whose client has
// received everything, a listening socket, and the sidecar's own connections to
// the app, which are known from its open files.
//
// # How a check is judged
//
// The kernel reports how many bytes and segments were received and sent, and
// when the last ones were. Each check is compared with the previous one
// (memory). What was received and sent since then is classified as nothing, a
// frame smaller than a request, or more (frames). From that, and from the order
// of the two, it follows whether the connection waits for an answer, was
// answered, or may be either (judge).
//
// The kernel records times in ticks of 1 to 10 ms. A client that sends its next
// request as soon as it is answered, or an app that answers at once, is faster
// than that. The order within a tick is then found by other signs: what the
// previous check showed, and who has acknowledged what. A client has received
// an answer, and so has acknowledged it, before it sends another request. An
// acknowledgement without data after the last request is for the answer to that
// request. If there was none, the next request has carried the acknowledgement.
//
// # Doubt
//
// A connection in doubt is not idle. What is sent is not always an answer: it
// may be TLS session tickets, a server's settings, 1xx responses, a header
// before its body, a part of an answer, or an answer to another request on the
// same connection. A connection in doubt counts until it was silent for
// LASTCALL_TCP_SILENCE. With auto, that time follows from the longest silence
// that was seen in the middle of work (learned). While too little was seen, the
// connection counts until it is closed.
//
// # What a port speaks
//
// On a port that speaks only HTTP/1, an answer after the last request ends the
// work on a connection. On other ports it may be the answer to another request.
// So the port is asked what it speaks (ask), once per start of the app, when
// the first client has come. LASTCALL_TCP_COUNT=auto uses the result.
//
// # Arrivals
//
// Arrived grows with each new connection, and with each check that finds that a
// connection has received more than pings. While Changed runs, connections that
// began and ended between two checks are also seen: the kernel reports each
// connection that ends.
//
// # What a reading costs
//
// To find the app's connections, the kernel walks through its table of all
// connections of the node. It also counts the connections that were ever made
// to the pod (PassiveOpens in /proc/net/snmp). While that count does not
// change, there can be no connections but those found before. Then the kernel
// is asked for each of these directly, and other connections cost nothing: see
// walk.
//
// # Where the diagnostics are refused
//
// The diagnostics may be refused, for instance by a seccomp profile, or by a
// kernel before Linux 4.19. Then the connections in /proc/net/tcp are counted,
// and the log reports this once. That table does not distinguish idle
// connections from busy ones: all connections that are not over count until
// they are closed. Arrivals are not reported.
package tcp
