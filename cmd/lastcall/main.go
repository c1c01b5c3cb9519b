// Command lastcall is a sidecar that lets a Kubernetes pod leave without a
// failed request.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"text/tabwriter"

	"lastcall/cmd/lastcall/demo"
	"lastcall/internal/settings"
)

// Set by the linker: see the Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

const usage = `lastcall lets a Kubernetes pod leave without a failed request.

usage: lastcall [command]

  serve     the sidecar (the default)
  config    prints every variable: name, value, default, what it is for
  demo      the whole job on this machine, with nothing installed
  version   version, commit, Go version
  help      this text
`

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	command := "serve"
	if len(args) > 0 {
		command = args[0]
	}
	if len(args) > 1 {
		fmt.Fprintf(os.Stderr, "lastcall: %q: commands take no arguments, all is set by the environment: see `lastcall config`\n", args[1])
		return exitBadInput
	}
	switch command {
	case "serve":
		return serve()
	case "config":
		return printConfig()
	case "demo":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return play(ctx)
	case "version", "--version", "-v":
		fmt.Printf("lastcall %s, commit %s, %s %s/%s\n", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return exitOK
	case "help", "--help", "-h":
		fmt.Print(usage)
		return exitOK
	}
	fmt.Fprintf(os.Stderr, "lastcall: there is no command %q\n\n%s", command, usage)
	return exitBadInput
}

// play runs the demo.
func play(ctx context.Context) int {
	ok, err := demo.Run(ctx, os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "lastcall: the demo could not be played to its end: %v\n", err)
	}
	if err != nil || !ok {
		return exitFailed
	}
	return exitOK
}

// printConfig prints every variable, and all mistakes after that.
func printConfig() int {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(table, strings.Join(cells, "\t")) }
	row("VARIABLE", "VALUE", "DEFAULT", "WHAT IT IS FOR")
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	var own config
	for _, v := range settings.Variables(append([]any{&own}, plugins().settings()...)...) {
		row(v.Name, dash(v.Value), dash(v.Default), v.Desc)
	}
	if err := table.Flush(); err != nil {
		return exitFailed
	}
	if _, err := configure(); err != nil {
		printErrors(err)
		return exitBadInput
	}
	return exitOK
}

// printErrors prints each mistake on a line of its own.
func printErrors(err error) {
	lines := strings.Split(err.Error(), "\n")
	fmt.Fprintf(os.Stderr, "lastcall: %d to mend in the environment:\n", len(lines))
	for _, line := range lines {
		fmt.Fprintln(os.Stderr, "  "+line)
	}
}
