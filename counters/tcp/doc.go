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
//   - something was received after all that was sent: a request that waits for
//     its answer (the times of the last data received and sent);
//   - or it is in doubt, and was not silent for LASTCALL_TCP_SILENCE.
//
// What does not count: a connection on which nothing was ever received, an idle
// keep-alive connection, one that the app has closed and whose client has
// everything, a listening socket, and the sidecar's own connections to the app,
// which are known by its own open files.
//
// # Doubt
//
// The kernel keeps these times in ticks of 1 to 10 ms. A client that asks again
// as soon as it is answered, or an app that answers at once, is faster. The
// order within a tick is then told by other signs: what the last look at the
// connection showed, and who has acknowledged what. A client has received an
// answer, and so acknowledged it, before it asks again; an acknowledgement that
// comes alone after the last request is for the answer to it; and where none
// came alone, the next request has brought it. Where no sign helps, the
// connection is in doubt. So it is in these cases:
//
//   - more was sent although nothing was asked for since the last answer: the
//     answer comes in pieces;
//   - at most 25 bytes were sent for a request: "100 Continue", and not yet its
//     answer;
//   - less than 18 bytes were received since the last answer, which is less
//     than a request has (a frame of HTTP/2 that needs no answer), or at most
//     64 bytes before the client's end (TLS's close_notify, HTTP/2's GOAWAY).
//
// With LASTCALL_TCP_SILENCE at least as long as the app's slowest answer takes,
// no request is missed in doubt; an idle connection in doubt holds the drain
// for as long after its last use.
//
// # What the kernel cannot tell
//
// Several requests at a time on one connection, as in HTTP/2 and gRPC: an
// answer to one looks like the answer to all. Set LASTCALL_TCP_COUNT=active:
// then each connection counts until it was silent for LASTCALL_TCP_SILENCE.
// WebSockets likewise. Where the app itself closes its connections when it is
// told to leave, LASTCALL_TCP_COUNT=open counts each until then.
//
// # Arrivals
//
// Arrived grows with each new connection, and with each look that finds that
// more was received on one. With Changed running, connections that came and went
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
