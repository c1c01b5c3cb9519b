// Package drain is the state machine of Lastcall: it takes a pod out of service
// without a failed request.
//
//	serving → withdrawing → propagating → draining → drained
//	                └────────────┴────────────┴────→ expired
//
// A drain begins with the preStop hook, a signal, or a call; however many
// there are, they share one drain. It withdraws the pod from its registries,
// waits until no client can still discover the pod or hold it in a cache, then
// until the work in flight has ended. One budget limits all of that. A drain
// can be taken back until deregistration has begun: every step is then undone,
// also one that failed half-way.
//
// # Use
//
// Make a [Drainer] with [New] from a [Config], call its Run in a goroutine, and
// hand it the hooks, signals and calls that arrive; Run returns when the process
// may end. Status, Totals and each [Observer] report what happens.
//
// # Plug-ins
//
// What a drain calls and counts is handed to it as plug-ins: [Registry],
// [Counter], [App] and [Notice]. What only some of them can do is a further
// interface of one or two methods (such as [Finder] or [AcceptStopper]), which
// the Drainer uses if the plug-in has it.
//
// Once the Drainer is made, every call to a plug-in or an [Observer] is guarded:
// one that panics has failed, and the process goes on. A context that a call is
// given ends after 5 s at most (unless a [CallLimiter] says otherwise), and the plug-in returns when it does; only Learn
// and Changed last as long as their contexts. Each method's comment says what
// may run at the same time.
//
// # Layers
//
// From the ground up:
//
//   - a worker makes the calls to one registry, one proxy that stops accepting,
//     or the app's notice, one at a time, for as long as the process lives. It
//     is the only one that makes them. What to call next is decided by its task;
//   - a registration and an acceptControl are such tasks: they decide under the
//     lock, and call nothing;
//     Where the sidecar registers the app (Registrar), the registration does that
//     too, between the other calls, and never in a drain;
//   - a poller reads one counter; an appWatch looks who listens in the pod;
//   - a drainRun is one drain, which a driver moves through its phases;
//   - the Drainer's own methods begin, end and take back drains, distinguish a
//     restart from a deletion, and deregister the pod at the end.
//
// One lock guards all state. Methods named …Locked need it; plug-ins are called
// without it, but for those that say otherwise.
//
// Only durations decide, measured on the monotonic clock; the wall clock is
// printed and never compared.
package drain
