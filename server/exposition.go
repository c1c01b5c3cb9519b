package server

import (
	"fmt"
	"strconv"
	"strings"
)

// exposition builds metrics in Prometheus' text format, version 0.0.4.
//
// The client library could do this too. But it depends on protocol buffers,
// whose reflection keeps the linker from removing unused code: the program
// would be half as large again, and its memory would grow by two thirds.
type exposition struct {
	text []byte
	name string // of the family whose samples come next
}

// family begins a metric. Its help text must not contain a backslash or a line
// feed.
func (e *exposition) family(name, kind, help string) {
	e.name = name
	e.text = fmt.Appendf(e.text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample adds a value with its labels, which are pairs of a name and a value.
// The suffix is for the parts of a summary.
func (e *exposition) sample(suffix string, value float64, labels ...string) {
	e.text = append(e.text, e.name...)
	e.text = append(e.text, suffix...)
	separator := byte('{')
	for i := 0; i+1 < len(labels); i += 2 {
		e.text = append(e.text, separator)
		e.text = fmt.Appendf(e.text, `%s="%s"`, labels[i], escaped.Replace(labels[i+1]))
		separator = ','
	}
	if len(labels) > 0 {
		e.text = append(e.text, '}')
	}
	e.text = append(e.text, ' ')
	e.text = strconv.AppendFloat(e.text, value, 'g', -1, 64)
	e.text = append(e.text, '\n')
}

// escaped escapes a label's value, which is written in quotes.
var escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
