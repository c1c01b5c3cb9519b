package haproxy

import "fmt"

// scrapeRequest finds the frontend through which the request for the page
// comes. That request is one of the frontend's open streams while HAProxy
// writes the page.
type scrapeRequest struct {
	name   string // empty while it is not known
	itself uint64 // what the frontend had answered itself at the last reading
	own    uint64 // requests for readings that are among its arrivals, since the first reading for which it was known
}

// counted returns how many of the counted streams are the request for the page:
// 1 if its frontend is counted, 0 otherwise. last holds the frontends at the
// previous reading; it is nil if there was none of the same worker. asked is
// how many requests were made since then.
func (s *scrapeRequest) counted(frontends []frontend, last map[string]frontend, asked uint64, counts func(frontend) bool) (int64, error) {
	candidates, known := s.candidates(frontends, last)
	if len(candidates) == 0 {
		return 0, fmt.Errorf("%w, or `stats scope` hides the frontend that it comes through", errStored)
	}
	found := len(candidates) == 1 && !known
	switch {
	case found:
		s.name, s.itself = candidates[0].name, candidates[0].itself
	case !known:
		s.name = ""
	}
	// While several frontends are possible, it is assumed to be one that is not
	// counted. Then one request too many may be counted, but never one too few.
	for _, f := range candidates {
		if s.name != "" && s.name != f.name {
			continue
		}
		if !counts(f) {
			return 0, nil
		}
		if s.name == f.name && !found {
			s.arrive(f, asked)
		}
	}
	return 1, nil
}

// candidates returns the frontends that have an open stream and at least one
// more request than at the last reading. known reports whether the known
// frontend is among them.
func (s *scrapeRequest) candidates(frontends []frontend, last map[string]frontend) (list []frontend, known bool) {
	for _, f := range frontends {
		if before, found := last[f.name]; !f.http || f.streams == 0 || found && f.total <= before.total {
			continue
		}
		list = append(list, f)
		known = known || f.name == s.name
	}
	return list, known
}

// arrive adds the requests for a reading that are among the arrivals of its
// frontend: none if the frontend answers the page itself, and all if the page
// is a backend's.
func (s *scrapeRequest) arrive(f frontend, asked uint64) {
	s.own += asked - min(asked, f.itself-min(s.itself, f.itself))
	s.itself = f.itself
}
