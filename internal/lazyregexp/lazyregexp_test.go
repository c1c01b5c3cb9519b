package lazyregexp

import "testing"

func TestNew(t *testing.T) {
	digits := New("^[0-9]+$")
	if first := digits(); !first.MatchString("12") || first.MatchString("a") || digits() != first {
		t.Error("it is not the expression, compiled once")
	}
	wrong := New("(")
	defer func() {
		if recover() == nil {
			t.Error("a wrong expression was taken")
		}
	}()
	wrong()
}
