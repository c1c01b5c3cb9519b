// Command lastcall is a sidecar that drains a Kubernetes pod without a failed
// request.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"text/tabwriter"

	"lastcall/internal/demo"
	"lastcall/internal/settings"
	"lastcall/registries/steps"
)

// Set by the linker: see the Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

const usage = `lastcall drains a Kubernetes pod without a failed request.

usage: lastcall [command]

  serve          the sidecar (the default)
  hook           for exec preStop hooks: waits for the drain, then runs a COMMAND;
                 "lastcall hook -help" says more
  install PATH   copies this program to PATH, for "hook" in the app's container
  config         prints every variable: name, value, default, what it is for
  demo           a rolling restart on this machine, without and with Lastcall
  version        version, commit, Go version
  help           this text
`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run runs the command that args name and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	command := "serve"
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "hook":
		return hook(args[1:], os.Getenv, stdout, stderr)
	case "install":
		return install(args[1:], stdout, stderr)
	}
	if len(args) > 1 {
		fmt.Fprintf(stderr, "lastcall: %q: %s takes no arguments; everything is configured by the environment, see `lastcall config`\n", args[1], command)
		return exitBadInput
	}
	switch command {
	case "serve":
		return serve()
	case "config":
		return printConfig(stdout, stderr)
	case "demo":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return playDemo(ctx, stderr)
	case "version", "--version", "-v":
		fmt.Fprintf(stdout, "lastcall %s, commit %s, %s %s/%s\n", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return exitOK
	case "help", "--help", "-h":
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	fmt.Fprintf(stderr, "lastcall: there is no command %q\n\n%s", command, usage)
	return exitBadInput
}

// playDemo runs the demo.
func playDemo(ctx context.Context, stderr io.Writer) int {
	ok, err := demo.Run(ctx, os.Stdout) // a terminal shows it differently
	if err != nil {
		fmt.Fprintf(stderr, "lastcall: the demo failed: %v\n", err)
	}
	if err != nil || !ok {
		return exitFailed
	}
	return exitOK
}

// printConfig prints every variable, the effective steps of registries that are
// data, and then all errors in the environment.
func printConfig(stdout, stderr io.Writer) int {
	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(table, strings.Join(cells, "\t")) }
	row("VARIABLE", "VALUE", "DEFAULT", "WHAT IT IS FOR")
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	var own config
	for _, v := range settings.Variables(append([]any{&own}, plugins(everyPreset).settings()...)...) {
		row(v.Name, dash(v.Value), dash(v.Default), v.Desc)
	}
	if err := table.Flush(); err != nil {
		return exitFailed
	}
	p, err := configure()
	for _, r := range p.drain.Registries {
		if s, ok := r.Registry.(*steps.Registry); ok {
			fmt.Fprintf(stdout, "\n# %s: the effective steps\n%s", r.Name, s.Steps())
		}
	}
	if err != nil {
		printErrors(stderr, err)
		return exitBadInput
	}
	return exitOK
}

// everyPreset wants all presets to be read.
func everyPreset(string) bool { return true }

// printErrors prints each error of the configuration on a line of its own.
func printErrors(w io.Writer, err error) {
	lines := strings.Split(err.Error(), "\n")
	noun := "errors"
	if len(lines) == 1 {
		noun = "error"
	}
	fmt.Fprintf(w, "lastcall: %d configuration %s:\n", len(lines), noun)
	for _, line := range lines {
		fmt.Fprintln(w, "  "+line)
	}
}
