package haproxy

import "fmt"

// scrapeRequest finds the frontend that the request for the page comes through. That
// request is one of its open streams while HAProxy writes the page.
type scrapeRequest struct {
	name   string // empty as long as it is not known
	itself uint64 // what it had answered itself at the last reading
	own    uint64 // requests of readings that are among its arrivals, since the first by which it was known
}

// counted returns how many of the counted streams are the request for the
// page: 1 where its frontend is counted, 0 otherwise. last are the frontends at
// the reading before, nil when there is none of the same worker; asked is how
// many requests were made since.
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
	// As long as several could be it, one that is not counted is taken to be
	// it: then a request too many may be counted, and never one too few.
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

// candidates returns the frontends that have an open stream, and a request
// more than at the last reading, and whether the known one is among them.
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

// arrive adds what of a reading is among the arrivals of its frontend. Nothing
// is where the frontend answers the page itself, and all of it where the page is
// a backend's.
func (s *scrapeRequest) arrive(f frontend, asked uint64) {
	s.own += asked - min(asked, f.itself-min(s.itself, f.itself))
	s.itself = f.itself
}
