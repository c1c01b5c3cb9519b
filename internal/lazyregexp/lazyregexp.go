// Package lazyregexp compiles regular expressions when they are first used. The
// sidecar contains all plug-ins and uses few of them. The expressions of the unused
// ones would take 100 kB.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New returns a function that returns the compiled expression. The function may be
// called by several goroutines. It panics if the expression is invalid.
func New(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
