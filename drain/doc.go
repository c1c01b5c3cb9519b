// Package drain is the one state machine of Lastcall: a pod's leaving.
//
//	serving → withdrawing → propagating → draining → drained
//	                └────────────┴────────────┴────→ expired
//
// A drain begins with the preStop hook, a signal, or a call; however many
// there are, they share one drain. It takes the pod out of its registries,
// waits until no client can still be told of it or remember it, then until
// the work in flight has ended. One budget caps all of that. A drain can be
// taken back until deregistration has begun.
//
// Three kinds of goroutine work on a [Drainer]:
//
//   - a keeper for each registry brings it to where it should be (in service,
//     withdrawn, deregistered), one call at a time, for as long as the process
//     lives;
//   - a driver for each drain moves it through its phases;
//   - a watcher looks who listens on the app's ports, for as long as the
//     process lives, which tells a restart from a deletion.
//
// All of them write to the Drainer's state under its one lock, and never call
// a plug-in while they hold it.
//
// Only durations decide, measured on the monotonic clock; the wall clock is
// printed and never compared.
package drain
