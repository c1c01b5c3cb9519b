// Package lazyregexp compiles regular expressions when they are first used. A
// sidecar has all plug-ins in it and uses few of them: the expressions of the
// others would take 100 kB of its memory.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New returns a function that returns the expression, compiled. It may be called
// by several goroutines. It panics if the expression is wrong.
func New(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
