package prometheus

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// series is one sample of a metric.
type series struct {
	labels  map[string]string
	value   float64
	time    time.Time // the sample's timestamp
	stamped bool      // whether it has one
}

// parse returns the samples with the given name from lines of the text format
// 0.0.4, or of OpenMetrics.
//
// Prometheus' own parser depends on protocol buffers, whose reflection keeps
// the linker from removing unused code: it made the whole program a third
// larger, and its memory two thirds. The tests compare this parser with it.
func parse(text []byte, name string, openMetrics bool) ([]series, error) {
	var all []series
	for line := range bytes.Lines(text) {
		l := scanner{rest: line, openMetrics: openMetrics}
		found, one, err := l.sample()
		if err != nil {
			format := "text format 0.0.4"
			if openMetrics {
				format = "OpenMetrics"
			}
			return nil, fmt.Errorf("its samples cannot be read as %s: %w in %.100q", format, err, line)
		}
		if found == name {
			all = append(all, one)
		}
	}
	return all, nil
}

// scanner parses one line from its beginning.
type scanner struct {
	rest        []byte
	openMetrics bool
}

// sample parses NAME{LABELS} VALUE TIMESTAMP. The labels and the timestamp are
// optional, and the name may be in quotes inside the braces.
func (l *scanner) sample() (name string, s series, err error) {
	name = l.word(isNameByte)
	if startsWithDigit(name) {
		return name, s, errors.New("no name")
	}
	s.labels = map[string]string{}
	l.blanks()
	if l.byte('{') {
		if name, err = l.labelsOf(name, s.labels); err != nil {
			return name, s, err
		}
		l.blanks()
	}
	if name == "" {
		return name, s, errors.New("no name")
	}
	value := l.word(isValueByte)
	if strings.ContainsAny(value, "pPxX_") {
		return name, s, errors.New("no number")
	}
	if s.value, err = strconv.ParseFloat(value, 64); err != nil {
		return name, s, errors.New("no number")
	}
	if l.byte('\n') {
		return name, s, nil
	}
	l.blanks()
	if err := l.timestamp(&s); err != nil {
		return name, s, err
	}
	if l.openMetrics && len(l.rest) > 0 && l.rest[0] == '#' {
		l.rest = l.rest[max(0, len(l.rest)-1):] // an exemplar
	}
	if !l.byte('\n') {
		return name, s, errors.New("unexpected end")
	}
	return name, s, nil
}

// timestamp parses the optional timestamp of a sample: milliseconds, or seconds
// in OpenMetrics.
func (l *scanner) timestamp(s *series) error {
	if len(l.rest) == 0 || l.rest[0] == '\n' || l.openMetrics && l.rest[0] == '#' {
		return nil
	}
	word := l.word(isValueByte)
	s.stamped = true
	if !l.openMetrics {
		ms, err := strconv.ParseInt(word, 10, 64)
		s.time = time.UnixMilli(ms)
		if err != nil {
			return errors.New("no time stamp in milliseconds")
		}
		return nil
	}
	seconds, err := strconv.ParseFloat(word, 64)
	if err != nil || math.IsNaN(seconds) || math.Abs(seconds) > maxSeconds {
		return errors.New("no time stamp in seconds")
	}
	s.time = time.UnixMicro(int64(seconds * 1e6))
	l.blanks()
	return nil
}

// maxSeconds limits a timestamp in seconds, so that it fits in microseconds.
const maxSeconds = 1 << 42

// labelsOf parses the content of the braces, including the closing brace.
func (l *scanner) labelsOf(name string, labels map[string]string) (string, error) {
	for {
		l.blanks()
		if l.byte('}') {
			return name, nil
		}
		quoted := len(l.rest) > 0 && l.rest[0] == '"'
		label, err := l.label(quoted)
		if err != nil {
			return name, err
		}
		l.blanks()
		switch {
		case l.byte('='):
			l.blanks()
			value, err := l.quoted()
			if err != nil {
				return name, err
			}
			if _, twice := labels[label]; twice || label == "" || label == "__name__" {
				return name, errors.New("a label that cannot be there")
			}
			labels[label] = value
		case quoted && name == "" && label != "":
			name = label
		default:
			return name, errors.New("a label without a value")
		}
		l.blanks()
		if !l.byte(',') && (len(l.rest) == 0 || l.rest[0] != '}') {
			return name, errors.New("no end of the labels")
		}
	}
}

func (l *scanner) label(quoted bool) (string, error) {
	if quoted {
		return l.quoted()
	}
	label := l.word(isLabelByte)
	if label == "" || startsWithDigit(label) {
		return "", errors.New("no label")
	}
	return label, nil
}

// quoted parses a text in quotes, in which \\, \" and \n are escapes.
func (l *scanner) quoted() (string, error) {
	if !l.byte('"') {
		return "", errors.New("no quotes")
	}
	var text strings.Builder
	for len(l.rest) > 0 {
		b := l.rest[0]
		l.rest = l.rest[1:]
		switch {
		case b == '"' && utf8.ValidString(text.String()):
			return text.String(), nil
		case b == '"':
			return "", errors.New("no UTF-8")
		case b == '\n':
			return "", errors.New("quotes that do not end")
		case b != '\\':
			text.WriteByte(b)
		case l.byte('n'):
			text.WriteByte('\n')
		case l.byte('"'):
			text.WriteByte('"')
		case l.byte('\\'):
			text.WriteByte('\\')
		default:
			return "", errors.New("an unknown escape")
		}
	}
	return "", errors.New("quotes that do not end")
}

// byte consumes b if it comes next, and reports whether it did.
func (l *scanner) byte(b byte) bool {
	if len(l.rest) == 0 || l.rest[0] != b {
		return false
	}
	l.rest = l.rest[1:]
	return true
}

func (l *scanner) blanks() { l.rest = bytes.TrimLeft(l.rest, " \t") }

// word consumes and returns the bytes that belong to a word.
func (l *scanner) word(belongs func(byte) bool) string {
	n := 0
	for n < len(l.rest) && belongs(l.rest[n]) {
		n++
	}
	word := string(l.rest[:n])
	l.rest = l.rest[n:]
	return word
}

func isLabelByte(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

func startsWithDigit(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }

func isNameByte(b byte) bool { return b == ':' || isLabelByte(b) }

func isValueByte(b byte) bool { return b != ' ' && b != '\t' && b != '\n' }
