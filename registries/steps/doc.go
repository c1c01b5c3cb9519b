// Package steps is the registry plug-in for whoever sends the pod work and can
// be spoken to by HTTP: what to call, what to wait for and how to undo it is
// data, in a YAML file. Presets are such files that come with the program.
//
// # From file to registry
//
// A file is read as YAML nodes, which know their lines (parse.go, parsestep.go),
// into the types of file.go; all mistakes are found at once. A caller (call.go)
// makes the call of one step; run.go judges its answer by the step's conditions
// (condition.go) and by the outcomes that the file names; registry.go runs the
// sections of the file as the methods of drain.Registry and drain.Finder.
//
// # What is never assumed
//
// An answer that was not hoped for, or that lacks what is compared, is an
// error, and so holds the drain: it is neither "withdrawn" nor zero. Only what
// the file names is something else: already so, not known, or never to be so.
package steps
