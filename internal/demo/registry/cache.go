package registry

import (
	"sync"
	"time"
)

// question is one kind of answer that clients read; each is cached by itself.
type question struct {
	path string // "apps", "apps/delta" or "apps/APP"
	xml  bool
}

// cache is the server's response cache, which has two layers. now is rebuilt when
// something has changed. Clients are answered from shown, which is regularly
// replaced by now.
type cache struct {
	every time.Duration
	make  func(question) []byte // nil: not found

	mu    sync.Mutex
	age   int // counts the times that now was thrown away
	now   map[question][]byte
	shown map[question][]byte
}

// maxQuestions bounds the memory, whatever clients ask for.
const maxQuestions = 1000

// get returns the answer as clients see it, nil for not found.
func (c *cache) get(q question) []byte {
	c.mu.Lock()
	answer, known := c.shown[q]
	c.mu.Unlock()
	if known {
		return answer
	}
	// Asked for the first time: made on the spot, and ahead of the others.
	answer = c.current(q)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.shown) < maxQuestions {
		c.shown[q] = answer
	}
	return answer
}

// current returns the answer as it is now. It is not called with the
// registry's lock held, which make takes.
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
		c.now[q] = answer // nothing has changed meanwhile
	}
	return answer
}

// invalidate has the current answers rebuilt. Those shown stay.
func (c *cache) invalidate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.age++
	clear(c.now)
}

// refresh shows the current answers.
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
