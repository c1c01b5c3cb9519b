// Package eureka is the registry plug-in for Netflix Eureka, as Spring Cloud
// and others serve it.
//
// # How the pod is withdrawn
//
// By a status override, set at every server (peer): the instance stays
// registered, so that its client's heartbeats find it and do not register it
// again, and the override beats the UP that they carry. It is
// LASTCALL_EUREKA_STATUS for an instance that is UP. A server records an
// override only where it differs from the instance's present status, so one
// that is not UP by its own word gets the other of OUT_OF_SERVICE and DOWN:
// that always differs in the end, keeps it out of service when it does come
// up, and tells Restore that UP is not what to put back.
//
// # What clients are told
//
// A server answers its clients from a cache that it refreshes in one pass
// every 30 s by default. Each kind of answer (all applications, one, or the
// latest changes; JSON or XML) is an entry of its own. What nobody asked for
// before is made on demand, and is then ahead of what clients get; a pass can
// be under way while the override arrives, and renew some entries before it
// and some after. So no entry speaks for another, and Withdrawn asks for all
// that clients read: apps, apps/delta and apps/APP, each as JSON and as XML,
// the cheap ones first. What each has shown stands as long as the server holds
// the pod as it did then, because answers do not go back in time. Only three rare kinds are not asked for: compact
// answers (X-Eureka-Accept), single VIPs, and answers with ?regions=. They are
// renewed in the same passes.
//
// A server that is making a new answer in the very moment of the override,
// because of another change just before, keeps the outdated one: for three
// minutes, or until something else in it changes. (Guava's cache does not
// invalidate what is being loaded.) It is rare in a small registry, and less so
// in a large one during a rollout. Withdrawn says so, and the next Withdraw sets
// the override to the other status and back, which makes the server throw its
// answers away.
//
// # When a peer is asked
//
// Withdrawn may be called at any rate; a peer is asked when that is due. Until its
// answers are renewed, one of the smallest is looked at, with gaps that grow with
// the time that clients take to forget the pod (waitPart). Once all have shown
// that the pod is gone, only what the server itself holds is read, a few times
// while clients use their copies and with each call in the last moments; the
// answers are read again when that changes. For an app that may come back under
// an id that is not known, apps/APP is read again once in a period of the server's
// cache.
//
// # Two applications, one instance id
//
// Servers keep overrides by instance id alone. See namesakes.go.
//
// # An app that the sidecar registers
//
// It is registered as Spring's client does, with every peer, and renewed at one.
// In a drain its override is the same, and its heartbeats end. See register.go.
//
// # A peer that is down
//
// A peer that refuses connections, or whose name does not resolve, can tell
// nobody of the pod: it is left out, provided that another peer answers. When
// it comes back it is told of the pod and its override by the others, with the
// app's next heartbeat to them; should the app's client speak to it first, it
// holds the pod as UP. Each call asks it again.
//
// Any other failure (no answer in time, a 5xx, a broken answer, an address
// without a route, a name server that does not answer) may be on this pod's
// side only, with clients still being served: it is an error, for the drainer
// to try again. When no peer answers, everything is an error.
//
// List every peer in LASTCALL_EUREKA_URLS by a name of its own. A name that
// stands for several (a Kubernetes Service) hides from which of them an answer
// came.
package eureka
