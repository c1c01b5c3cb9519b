package main

import (
	"strconv"
	"strings"
	"testing"
)

func FuzzPorts(f *testing.F) {
	for _, seed := range []string{"8080", "8080, 8081", ",", " ", "+1", "99999999999999999999", "0x50"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		var p ports
		if err := p.Decode(value); err != nil {
			return
		}
		var texts []string
		for _, port := range p {
			texts = append(texts, strconv.Itoa(port))
		}
		var again ports
		if err := again.Decode(strings.Join(texts, ",")); err != nil || len(again) != len(p) {
			t.Errorf("%q is read as %v", value, p)
		}
		p.check()
	})
}
