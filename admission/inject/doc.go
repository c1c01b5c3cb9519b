// Package inject adds the Lastcall sidecar to pods.
//
// Pod is the one definition of what is added and to which pods. The webhook
// calls it, and deploy/policy says the same in CEL, for clusters that can do
// without a webhook; a test feeds both the pods in testdata and compares.
//
// What happens to a pod, in this order:
//
//  1. A pod that Skip names a reason for stays as it is.
//  2. The app's containers are chosen: those that the annotation
//     lastcall/container names, or all. Init containers are none of the app's.
//  3. Each of them gets the preStop hook and the shared volume. An exec hook
//     that is there is run by `lastcall hook` once the pod has drained. A hook
//     of another kind cannot be wrapped: it stays, and the pod is labelled
//     lastcall/unhooked.
//  4. The sidecar is added as the last init container, with restartPolicy
//     Always. If a hook needs the program in the app's container, the sidecar's
//     postStart hook copies it to the shared volume.
package inject

// Names that are fixed: the project's documents promise them.
const (
	Label         = "lastcall/inject"    // label; the value is "true"
	Container     = "lastcall/container" // annotation: the app's containers, separated by commas
	Config        = "lastcall/config"    // annotation: a ConfigMap, and a Secret of that name, for envFrom
	Unhooked      = "lastcall/unhooked"  // label that is set if a preStop hook was left as it was
	Sidecar       = "lastcall"           // name of the container
	Volume        = "lastcall"           // name of the shared volume
	Folder        = "/lastcall"          // where it is mounted
	Program       = Folder + "/lastcall" // the copy of the program
	DefaultPort   = 8099                 // of LASTCALL_LISTEN
	prefix        = "lastcall/"          // of annotations that set variables
	selectorLabel = "lastcall"           // label by which a PodMonitor or a NetworkPolicy finds the pods
	mirror        = "kubernetes.io/config.mirror"
)
