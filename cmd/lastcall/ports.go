package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ports is LASTCALL_APP_PORT: one port, or a list.
type ports []int

// Decode reads the list; envconfig calls it.
func (p *ports) Decode(value string) error {
	*p = nil
	if strings.TrimSpace(value) == "" {
		return nil
	}
	for entry := range strings.SplitSeq(value, ",") {
		port, err := strconv.Atoi(strings.TrimSpace(entry))
		if err != nil {
			return fmt.Errorf("reading a port: %w", err)
		}
		*p = append(*p, port)
	}
	return nil
}

// check finds the mistakes in the list.
func (p ports) check() (mistakes []error) {
	for i, port := range p {
		switch {
		case port < 1 || port > 65535:
			mistakes = append(mistakes, fmt.Errorf("LASTCALL_APP_PORT=%d: must be from 1 to 65535", port))
		case slices.Contains(p[:i], port):
			mistakes = append(mistakes, fmt.Errorf("LASTCALL_APP_PORT names %d twice", port))
		}
	}
	return mistakes
}

// first is the port by which registries know the app; 0 when none is set.
func (p ports) first() int {
	if len(p) == 0 {
		return 0
	}
	return p[0]
}
