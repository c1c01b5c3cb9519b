// Package steps is the registry plug-in for anything that sends the pod work
// and has an HTTP API. The calls to make, the conditions to wait for and the
// calls that undo them are data, in a YAML file. Presets are such files,
// embedded in the program.
//
// # From file to registry
//
// A file is parsed as YAML nodes, which have line numbers (parse.go,
// parsestep.go), into the types of file.go; all mistakes are collected. A
// caller (call.go) makes the call of one step. run.go evaluates its answer by
// the step's conditions (condition.go) and by the outcomes that the file names.
// registry.go runs the sections of the file as the methods of drain.Registry
// and drain.Finder.
//
// # What is never assumed
//
// An unexpected answer, or one without the value that is compared, is an error,
// and so it holds up the drain: it means neither "withdrawn" nor zero. Only
// answers that the file names have another meaning: already done, not known, or
// never possible.
package steps
