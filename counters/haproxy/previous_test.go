package haproxy

import (
	"errors"
	"strings"
	"testing"
)

// pageOf returns a reading of the page, with the total requests on web, and on
// stats, which serves the page.
func pageOf(web, stats uint64) worker {
	return worker{frontends: []frontend{
		{name: "web", http: true, total: web},
		{name: "stats", http: true, total: stats, itself: stats},
	}}
}

func withPid(pid int, w worker) worker {
	w.pid = pid
	return w
}

func TestReplaced(t *testing.T) {
	for name, test := range map[string]struct {
		before, now worker
		page        bool
		want        bool
		stored      bool
	}{
		"the same":               {pageOf(5, 1), pageOf(5, 2), true, false, false},
		"the same, with traffic": {pageOf(5, 1), pageOf(9, 7), true, false, false},
		"fewer requests":         {pageOf(5, 1), pageOf(4, 2), true, true, false},
		"fewer pages":            {pageOf(5, 3), pageOf(9, 1), true, true, false},
		"as many pages, though one was asked for":  {pageOf(5, 1), pageOf(5, 1), true, true, true},
		"a frontend is missing":                    {pageOf(5, 1), worker{frontends: pageOf(5, 2).frontends[1:]}, true, true, false},
		"the same page again, of the same process": {withPid(7, pageOf(5, 1)), withPid(7, pageOf(5, 1)), true, false, true},
		"the same page again, of another process":  {withPid(7, pageOf(5, 1)), withPid(8, pageOf(5, 1)), true, true, false},
		"the same process":                         {worker{pid: 7}, worker{pid: 7}, false, false, false},
		"another process":                          {worker{pid: 7}, worker{pid: 8}, false, true, false},
	} {
		o := previousWorker{last: byName(test.before.frontends), pid: test.before.pid}
		if got, stored := o.replaced(test.now, test.page); got != test.want || stored != test.stored {
			t.Errorf("%s: %v, %v, want %v, %v", name, got, stored, test.want, test.stored)
		}
	}
	if replaced, stored := (&previousWorker{}).replaced(pageOf(1, 1), true); replaced || stored {
		t.Error("the first reading is of another process than the one before it")
	}
}

func TestOldWorkerIsFollowed(t *testing.T) {
	type step struct {
		inFlight int64
		replaced bool
		open     []string // connections
		want     string   // of the error; empty for none
	}
	const lost, remain = "reloaded with work in flight", "connections from before remain"
	for name, steps := range map[string][]step{
		"nothing was in flight": {{0, false, nil, ""}, {0, true, []string{"a"}, ""}, {0, false, []string{"a"}, ""}},
		"its connections end, one by one": {
			{2, false, []string{"a", "b"}, ""},
			{0, true, []string{"a", "b"}, lost},
			{0, false, []string{"a", "b"}, "2 " + remain},
			{1, false, []string{"b", "new"}, "1 " + remain},
			{1, false, []string{"new"}, ""},
			{0, false, nil, ""},
		},
		"its connections end at once": {{1, false, []string{"a"}, ""}, {0, true, nil, lost}, {0, false, nil, ""}},
		"reloaded twice": {
			{1, false, []string{"a"}, ""},
			{0, true, []string{"a"}, lost},
			{0, false, []string{"a"}, "1 " + remain},
			{0, true, []string{"a", "b"}, lost},
			{0, false, []string{"a", "b"}, "2 " + remain},
			{0, false, []string{"b"}, "1 " + remain},
			{0, false, nil, ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var o previousWorker
			for i, s := range steps {
				err := o.look(pageOf(1, 1), s.inFlight, s.replaced, func() (map[string]bool, error) {
					open := make(map[string]bool)
					for _, remote := range s.open {
						open[remote] = true
					}
					return open, nil
				})
				if (err == nil) != (s.want == "") || err != nil && !strings.Contains(err.Error(), s.want) {
					t.Fatalf("step %d: got %v, want %q", i, err, s.want)
				}
			}
		})
	}
}

func TestOldWorkerThatCannotBeFollowed(t *testing.T) {
	var o previousWorker
	errUnseen := errors.New("no /proc")
	blind := func() (map[string]bool, error) { return nil, errUnseen }
	if err := o.look(pageOf(1, 1), 1, false, blind); err != nil {
		t.Fatal(err)
	}
	for _, replaced := range []bool{true, false, false} {
		if err := o.look(pageOf(1, 1), 0, replaced, blind); !errors.Is(err, errUnseen) {
			t.Fatalf("got %v, want %v", err, errUnseen)
		}
	}
}
