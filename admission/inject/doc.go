// Package inject adds the Lastcall sidecar to pods.
//
// Pod is the only definition in Go of what is added and to which pods. The webhook
// calls it. deploy/policy does the same in CEL, for clusters that do not need a
// webhook; a test compares the results of both for the pods in testdata.
//
// A pod is changed in these steps:
//
//  1. A pod for which Skip returns a reason is not changed.
//  2. The app's containers are selected: those that the annotation
//     lastcall/container names, or all. Init containers are never selected.
//  3. Each selected container gets the preStop hook and the shared volume. An
//     existing exec hook is wrapped: `lastcall hook` runs it after the drain. A
//     hook of another kind cannot be wrapped: it stays, and the pod gets the label
//     lastcall/unhooked.
//  4. The sidecar is added as the last init container, with restartPolicy
//     Always. If a hook needs the program in the app's container, the sidecar's
//     postStart hook copies it to the shared volume.
package inject

// Names that are documented and must not change.
const (
	Label         = "lastcall/inject"    // label; the value is "true"
	Container     = "lastcall/container" // annotation: the app's containers, separated by commas
	Config        = "lastcall/config"    // annotation: a ConfigMap, and a Secret of that name, for envFrom
	Unhooked      = "lastcall/unhooked"  // label that is set if a preStop hook was left as it was
	Sidecar       = "lastcall"           // name of the container
	Volume        = "lastcall"           // name of the shared volume
	Folder        = "/lastcall"          // mount path of the shared volume
	Program       = Folder + "/lastcall" // path of the program's copy
	DefaultPort   = 8099                 // of LASTCALL_LISTEN
	prefix        = "lastcall/"          // of annotations that set variables
	selectorLabel = "lastcall"           // label by which a PodMonitor or a NetworkPolicy finds the pods
	mirror        = "kubernetes.io/config.mirror"
)
