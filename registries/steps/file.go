package steps

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Limits of a file. A file that exceeds them is rejected.
const (
	maxFile  = 256 << 10 // bytes
	maxSteps = 50        // of one section
	maxList  = 50        // entries of one list
)

// defaultTimeout is the timeout of one call, unless the file sets another. The
// drainer limits all calls of one section together to 5 s.
const (
	defaultTimeout = 3 * time.Second
	minTimeout     = 100 * time.Millisecond
	maxTimeout     = 5 * time.Second
)

// section is a list of steps with a purpose.
type section string

const (
	find       section = "find"
	withdraw   section = "withdraw"
	withdrawn  section = "withdrawn"
	restore    section = "restore"
	leftover   section = "leftover"
	listed     section = "listed"
	deregister section = "deregister"
)

func sections() []section {
	return []section{find, withdraw, withdrawn, restore, leftover, listed, deregister}
}

// file is the parsed content of a YAML file.
type file struct {
	name     string // for messages: its path, or the preset's name
	servers  []text
	headers  []header
	token    token
	tls      tlsFiles
	timeout  time.Duration
	unlisted bool // the conditions of withdrawn may hold while in service too
	sections map[section][]step
}

// step is one call, and what its answer must be like.
type step struct {
	at       string // FILE:LINE
	method   string
	url      text
	body     text
	headers  []header
	token    token
	ok       []int // codes of an answer that is evaluated; empty: 200 to 299
	outcomes []outcome
	expected []condition
	set      []assignment
	timeout  time.Duration // zero: the file's
}

type header struct {
	name  string
	value text
}

// token is a secret, stored in a file, that is sent with each call.
type token struct {
	file   text
	header string // empty: Authorization: Bearer
}

// tlsFiles are the files that verify the servers and that authenticate the
// client.
type tlsFiles struct {
	ca, cert, key, serverName text
	insecure                  bool
	set                       bool
}

// assignment sets a variable to the value at a path of the answer.
type assignment struct {
	name string
	path text
}

// verdict is the meaning of an answer for its section.
type verdict string

const (
	passed verdict = "ok"      // the step has succeeded, or its conditions hold
	unmet  verdict = "unmet"   // its conditions do not hold
	done   verdict = "done"    // the state has already been reached
	end    verdict = "end"     // the state has been reached, and the rest of the section is not needed
	absent verdict = "absent"  // the instance is not known
	notYet verdict = "not_yet" // the condition does not hold
	never  verdict = "never"   // the state can never be reached
)

// verdicts returns the keys of a step under which the file lists codes, in the
// order in which they are checked.
func verdicts() []verdict { return []verdict{never, absent, end, done, notYet} }

// allowed returns the verdicts that are valid in a section.
func (s section) allowed() []verdict {
	switch s {
	case find:
		return []verdict{absent}
	case withdraw:
		return []verdict{done, end, never}
	case withdrawn:
		return []verdict{done, notYet, never}
	case leftover:
		return []verdict{notYet}
	case listed:
		return []verdict{done, notYet}
	default:
		return []verdict{done, end}
	}
}

// outcome is a kind of answer to which the file assigns a meaning.
type outcome struct {
	verdict verdict
	codes   []int // empty: the codes of ok
	when    []condition
	missing bool // the value for set is not in the answer
	refused bool // the connection was refused
	timeout bool // there was no answer in time
	because string
}

// okay reports whether an answer with this code can be evaluated.
func (s *step) okay(code int) bool {
	if len(s.ok) == 0 {
		return code/100 == 2
	}
	return slices.Contains(s.ok, code)
}

// match returns the outcome that names this code, and whose conditions hold.
func (s *step) match(code int, body []byte, values values) (outcome, bool) {
	for _, v := range verdicts() {
		for _, o := range s.outcomes {
			if o.verdict == v && o.matches(s, code, body, values) {
				return o, true
			}
		}
	}
	return outcome{}, false
}

func (o *outcome) matches(s *step, code int, body []byte, values values) bool {
	if o.isWord() {
		return false
	}
	if len(o.codes) == 0 && !s.okay(code) || len(o.codes) > 0 && !slices.Contains(o.codes, code) {
		return false
	}
	for _, c := range o.when {
		if holds, err := c.holds(body, values); err != nil || !holds {
			return false
		}
	}
	return true
}

// isWord reports whether the outcome stands for something other than an answer
// with a code.
func (o *outcome) isWord() bool { return o.missing || o.refused || o.timeout }

// special returns the first outcome for which is returns true.
func (s *step) special(is func(outcome) bool) (outcome, bool) {
	i := slices.IndexFunc(s.outcomes, is)
	if i < 0 {
		return outcome{}, false
	}
	return s.outcomes[i], true
}

// reason returns why the state can never be reached.
func (o *outcome) reason(s *step, code int) string {
	if o.because != "" {
		return fmt.Sprintf("%s (%s)", o.because, s.at)
	}
	if code == 0 {
		return fmt.Sprintf("%s %s did not answer: according to %s, the withdrawal can never succeed", strings.ToUpper(s.method), s.url.raw, s.at)
	}
	return fmt.Sprintf("%s %s answered %d: according to %s, the withdrawal can never succeed", strings.ToUpper(s.method), s.url.raw, code, s.at)
}
