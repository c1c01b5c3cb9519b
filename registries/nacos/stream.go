package nacos

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// maxList limits a list, in bytes: some 100,000 instances.
	maxList = 64 << 20
	// maxHost limits what is read from one instance to the next, and thereby
	// the memory: lists are streamed and never held as a whole.
	maxHost = 1 << 20
)

// bounded is the body of a list.
type bounded struct {
	io.Reader
	total int
	since int // read since the last instance
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.total > maxList {
		return 0, fmt.Errorf("the answer is longer than %d MiB", maxList>>20)
	}
	if b.since > maxHost {
		return 0, fmt.Errorf("the answer holds something longer than %d MiB that is no list of instances", maxHost>>20)
	}
	n, err := b.Reader.Read(p)
	b.total, b.since = b.total+n, b.since+n
	return n, err
}

// listing is the content of a list apart from its instances.
type listing struct {
	found     bool // there is a list of instances in it
	code      int  // of v2 and v3; other than 0: a failure
	message   string
	size      int  // in bytes, as far as it was read
	protected bool // too few instances are healthy, so all are returned as healthy
}

// scan reads a list of any version, and passes each instance to visit. The
// instances of v1 are in hosts, those of v2 in data.hosts, those of v3 in data.
func scan(body io.Reader, visit func(host)) (listing, error) {
	s := &scanner{body: &bounded{Reader: body}, visit: visit}
	s.dec = json.NewDecoder(s.body)
	first, err := s.dec.Token()
	switch {
	case errors.Is(err, io.EOF):
		return s.got, errors.New("it is empty")
	case err != nil:
		return s.got, err
	case first != json.Delim('{'):
		return s.got, errors.New("it is no object")
	}
	err = s.object(true)
	s.got.size = s.body.total
	return s.got, err
}

type scanner struct {
	body  *bounded
	dec   *json.Decoder
	visit func(host)
	got   listing
}

// object reads an object after its opening brace: the whole answer, or its
// data.
func (s *scanner) object(whole bool) error {
	for s.dec.More() {
		name, err := s.dec.Token()
		if err != nil {
			return err
		}
		value, err := s.dec.Token()
		if err != nil {
			return err
		}
		isList := value == json.Delim('[')
		switch {
		case isList && (name == "hosts" || name == "data"):
			err = s.hosts()
		case whole && name == "data" && value == json.Delim('{'):
			err = s.object(false)
		default:
			s.note(name, value)
			err = s.skip(value)
		}
		if err != nil {
			return err
		}
	}
	_, err := s.dec.Token()
	return err
}

// note keeps the values that describe the whole list.
func (s *scanner) note(name, value json.Token) {
	switch v := value.(type) {
	case float64:
		if name == "code" {
			s.got.code = int(v)
		}
	case string:
		if name == "message" {
			s.got.message = v
		}
	case bool:
		if name == "reachProtectionThreshold" {
			s.got.protected = v
		}
	}
}

func (s *scanner) hosts() error {
	s.got.found = true
	for s.dec.More() {
		var h host
		if err := s.dec.Decode(&h); err != nil {
			return err
		}
		s.body.since = 0
		s.visit(h)
	}
	_, err := s.dec.Token()
	return err
}

// skip reads the rest of a value whose first token is first.
func (s *scanner) skip(first json.Token) error {
	depth := 0
	for token := first; ; {
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
		var err error
		if token, err = s.dec.Token(); err != nil {
			return err
		}
	}
}
