package registry

import (
	"sync"
	"time"
)

// question is one kind of answer that clients read. Each is cached separately.
type question struct {
	path string // "apps", "apps/delta" or "apps/APP"
	xml  bool
}

// cache is the server's response cache. It has two layers: now is rebuilt after
// changes. Clients get answers from shown, which is replaced by now at intervals.
type cache struct {
	every time.Duration
	make  func(question) []byte // nil: not found

	mu    sync.Mutex
	age   int // how often now was invalidated
	now   map[question][]byte
	shown map[question][]byte
}

// maxQuestions limits the memory, whatever clients ask for.
const maxQuestions = 1000

// get returns the answer that clients get, or nil if it is not found.
func (c *cache) get(q question) []byte {
	c.mu.Lock()
	answer, known := c.shown[q]
	c.mu.Unlock()
	if known {
		return answer
	}
	// The first time, the answer is created at once, and may be newer than the
	// others.
	answer = c.current(q)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.shown) < maxQuestions {
		c.shown[q] = answer
	}
	return answer
}

// current returns the current answer. The caller must not hold the registry's lock,
// because make takes it.
func (c *cache) current(q question) []byte {
	c.mu.Lock()
	answer, known := c.now[q]
	age := c.age
	c.mu.Unlock()
	if known {
		return answer
	}
	answer = c.make(q)
	c.mu.Lock()
	defer c.mu.Unlock()
	if age == c.age && len(c.now) < maxQuestions {
		c.now[q] = answer // there was no change in the meantime
	}
	return answer
}

// invalidate discards the current answers. Those in shown stay.
func (c *cache) invalidate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.age++
	clear(c.now)
}

// refresh replaces shown by the current answers.
func (c *cache) refresh() {
	c.mu.Lock()
	var asked []question
	for q := range c.shown {
		asked = append(asked, q)
	}
	c.mu.Unlock()
	for _, q := range asked {
		answer := c.current(q)
		c.mu.Lock()
		c.shown[q] = answer
		c.mu.Unlock()
	}
}
