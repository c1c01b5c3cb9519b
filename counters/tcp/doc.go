// Package tcp counts the work in flight in an app that knows nothing of it, by
// what the kernel tells of the app's connections: the containers of a pod share
// one network namespace.
//
// It asks the kernel's socket diagnostics (sock_diag, over netlink) for the
// connections on the app's ports and no others. No right is needed for that.
//
// # What counts
//
// A connection counts while
//
//   - data waits for the app to read it, or for the client to take it;
//   - a request was received after all that was sent, and waits for its answer;
//   - or it is in doubt: see below.
//
// What does not count: a connection on which nothing was ever received, one
// that was answered for sure, one that the app has closed and whose client has
// everything, a listening socket, and the sidecar's own connections to the app,
// which are known by its own open files.
//
// # How a look is judged
//
// The kernel tells how many bytes and segments came and went, and when the last
// ones did. Each look is compared with the one before (memory): what came and
// went since is nothing, a frame that is less than a request, or more (frames),
// and follows from that and the order of both whether the connection waits for
// an answer, was answered, or neither is sure (judge).
//
// The kernel keeps times in ticks of 1 to 10 ms. A client that asks again as
// soon as it is answered, or an app that answers at once, is faster. The order
// within a tick is then told by other signs: what the last look showed, and who
// has acknowledged what. A client has received an answer, and so acknowledged
// it, before it asks again; an acknowledgement that comes alone after the last
// request is for the answer to it; and where none came alone, the next request
// has brought it.
//
// # Doubt
//
// In doubt is not idle. What is sent is not always an answer: TLS's session
// tickets, a server's settings, 1xx responses, a header before its body, a
// piece of an answer, an answer to another request on the same connection. A
// connection in doubt counts until it was silent for LASTCALL_TCP_SILENCE. With
// auto that is a multiple of the longest silence that was seen in the middle of
// work (learned); while too little was seen it counts until it is closed.
//
// # What a port speaks
//
// On a port that speaks HTTP/1 alone, an answer after the last request ends the
// work on a connection. On others it may be the answer to another request. So
// the port is asked (ask), once per start of the app and when its first client
// has come, and LASTCALL_TCP_COUNT=auto follows what is found.
//
// # Arrivals
//
// Arrived grows with each new connection, and with each look that finds that
// more was received on one than pings. With Changed running, connections that came and went
// between two looks are seen as well: the kernel tells of each that ends.
//
// # What a reading costs
//
// To find the app's connections the kernel goes through its table of all
// connections of the node. It tells how many connections were ever made to the
// pod (PassiveOpens in /proc/net/snmp), and while that stays the same there can
// be no others than those found before. Then it is asked for each of these by
// itself, so that others cost nothing: see walk.
//
// # Where the diagnostics are refused
//
// By a seccomp profile, for instance, or a kernel before Linux 4.19. Then
// connections are counted by /proc/net/tcp, which the log says once. It does
// not tell idle ones from busy ones: all count that are not over, until they
// are closed. Arrivals are not told.
package tcp
