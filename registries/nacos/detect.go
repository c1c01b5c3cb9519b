package nacos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// ready returns the version of the server's API. If it is not known, the
// version of another server is tried; run corrects it.
func (s *server) ready(ctx context.Context, of service) (version, error) {
	if v, _ := s.known(); v != 0 {
		return v, nil
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return 0, err
	}
	v, _ := s.known()
	if v == 0 {
		if v = version(s.others.Swap(0)); v != 0 {
			s.setVersion(v)
		}
	}
	leave() // the login needs the gate too
	if v != 0 {
		return v, nil
	}
	return s.detect(ctx, of)
}

// detect determines the version of the server's API. A server also has the
// older versions, or answers them with 410. If an answer is not Nacos' own, for
// example a gateway's page, the server does not have that version.
func (s *server) detect(ctx context.Context, of service) (version, error) {
	var strange error
	for _, v := range []version{v3, v2, v1} {
		r := request{method: http.MethodGet, path: listPath(v), query: of.query(v == v1)}
		if v == v3 {
			// The plug-in uses the admin API, and a server may lack it.
			r.path = instancePath(v3) + "/list"
		}
		var isNot error // Nacos' answer
		r.read = func(body io.Reader) error {
			var l listing
			if l, isNot = scan(body, func(host) {}); isNot == nil && !l.found && l.code == 0 {
				isNot = errNoList
			}
			return broken(isNot)
		}
		a, err := s.call(ctx, r)
		switch {
		case err != nil:
			return 0, err
		case a.absent():
			continue
		case isNot != nil:
			strange = fmt.Errorf("unexpected answer, which is not Nacos' but a gateway's or another server's (%v): %w", r, isNot)
			continue
		case a.code/100 == 3, v != v1 && !a.ofAPI() && (a.code == http.StatusUnauthorized || a.code == http.StatusForbidden):
			strange = s.refusal(r, a) // a gateway's
			continue
		case a.code == http.StatusTooManyRequests, a.code >= 500 && !a.notFound(v):
			return 0, s.refusal(r, a)
		}
		s.setVersion(v)
		return v, nil
	}
	if strange != nil {
		return 0, strange
	}
	return 0, errNotNacos
}

func (s *server) setVersion(v version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version, s.marks = v, notKnown
	s.others.Store(int32(v)) //nolint:gosec // 0 to 3
}

// broken returns err if an answer was not read to its end. An unexpected
// content is not an error here: the server has answered.
func broken(err error) error {
	if network := (net.Error)(nil); errors.As(err, &network) || errors.Is(err, context.Canceled) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}
