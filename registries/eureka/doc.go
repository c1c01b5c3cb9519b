// Package eureka is the registry plug-in for Netflix Eureka, as Spring Cloud
// and others serve it.
//
// # How the pod is withdrawn
//
// Lastcall sets a status override at every server (peer). The instance stays
// registered, so its client's heartbeats succeed and the client does not
// register it again. The override takes precedence over the UP that the
// heartbeats carry.
//
// The override is LASTCALL_EUREKA_STATUS for an instance that is UP. A server
// records an override only if it differs from the instance's present status. An
// instance whose app has reported another status than UP therefore gets the
// other one of OUT_OF_SERVICE and DOWN. That status always differs in the end,
// it keeps the instance out of service if the app comes up later, and it tells
// Restore not to set the instance to UP.
//
// # What clients read
//
// A server answers its clients from a cache that it refreshes in one pass,
// every 30 s by default. Each kind of answer (all applications, one
// application, or the latest changes; JSON or XML) is a cache entry of its own.
// An entry that no client has requested before is built on demand, and is then
// newer than what clients get. The override can also arrive during a pass, so
// that some entries were renewed before it and some after it. One entry
// therefore proves nothing about another, and Withdrawn requests all answers
// that clients read: apps, apps/delta and apps/APP, each as JSON and as XML,
// the cheap ones first. What an answer has shown remains valid as long as the
// server holds the pod in the same state, because answers do not go back in
// time. Only three rare kinds are not requested: compact answers
// (X-Eureka-Accept), single VIPs, and answers with ?regions=. They are renewed
// in the same passes.
//
// If a server is building a new answer at the very moment of the override,
// because of another change just before, it keeps the outdated answer: for
// three minutes, or until something else in it changes. (Guava's cache does not
// invalidate an entry that is being loaded.) This is rare in a small registry,
// and less rare in a large one during a rollout. Withdrawn reports the pod as
// listed then, and the next Withdraw sets the override to the other status and
// back, which makes the server discard its answers.
//
// # When a peer is queried
//
// Withdrawn may be called at any rate: a peer is queried only when a query is
// due. Until the peer's answers are renewed, Lastcall reads one of the
// smallest, at intervals that grow with the time that clients take to forget
// the pod (waitPart). Once all answers have shown that the pod is gone,
// Lastcall reads only what the server itself holds: a few times while clients
// use their copies, and with each call in the last moments. If that changes, it
// reads the answers again. For an app that may come back under an unknown id,
// it reads apps/APP again once per period of the server's cache.
//
// # Two applications, one instance id
//
// Servers store overrides by instance id alone. See namesakes.go.
//
// # An app that the sidecar registers
//
// The sidecar registers the app as Spring's client does: with every peer, and
// it renews the registration at one of them. In a drain it sets the same
// override and stops the heartbeats. See register.go.
//
// # A peer that is down
//
// A peer that refuses connections, or whose name does not resolve, sends no
// client to the pod. It is left out, provided that another peer answers. When
// it comes back, the other peers pass the pod and its override on to it, with
// the app's next heartbeat to them. If the app's client contacts it first, it
// holds the pod as UP. Each call tries the peer again.
//
// Any other failure (no answer in time, a 5xx, a broken answer, an address
// without a route, a name server that does not answer) may affect only this
// pod, while clients are still being served. It is an error, and the drainer
// tries again. If no peer answers, every failure is an error.
//
// List every peer in LASTCALL_EUREKA_URLS by a name of its own. If one name
// stands for several peers (a Kubernetes Service), Lastcall cannot know which
// of them an answer came from.
package eureka
