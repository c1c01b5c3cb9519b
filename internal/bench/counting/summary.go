package counting

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// tally counts the verdicts of some runs.
type tally struct {
	runs, early, young, youngNeedless, old, oldNeedless int
}

func (t *tally) add(r *Result, judge string) {
	v := r.Verdicts[judge]
	t.runs++
	if v.Early() {
		t.early++
	}
	needless := 0
	if v.Needless {
		needless = 1
	}
	if r.History {
		t.old++
		t.oldNeedless += needless
	} else {
		t.young++
		t.youngNeedless += needless
	}
}

// Summary summarizes all runs.
type Summary struct {
	results []Result
	broken  []Result
}

// Summarize separates valid runs from broken ones.
func Summarize(results []Result) Summary {
	var s Summary
	for i := range results {
		if results[i].Broken != "" {
			s.broken = append(s.broken, results[i])
			continue
		}
		s.results = append(s.results, results[i])
	}
	return s
}

// Broken lists the invalid runs, with the reasons.
func (s *Summary) Broken() (texts []string) {
	for i := range s.broken {
		r := &s.broken[i]
		texts = append(texts, r.String()+": "+r.Broken)
	}
	slices.Sort(texts)
	return texts
}

// Early lists the runs in which a judge was early, with the requests in flight.
func (s *Summary) Early(judge string) (texts []string) {
	for i := range s.results {
		r := &s.results[i]
		if v := r.Verdicts[judge]; v.Early() {
			texts = append(texts, fmt.Sprintf("%s: the hook returned after %.2f s, before the answer to %s", r.String(), v.Seconds, strings.Join(v.Open, ", ")))
		}
	}
	slices.Sort(texts)
	return texts
}

// row is a line of a table.
type row struct {
	order   []string // sort key, and the first columns
	tallies map[string]*tally
}

// rows groups runs with the same key into a row.
func rows(results []Result, key func(*Result) []string) []*row {
	found := make(map[string]*row)
	for i := range results {
		r := &results[i]
		order := key(r)
		if order == nil {
			continue
		}
		name := strings.Join(order, "\x00")
		if found[name] == nil {
			found[name] = &row{order: order, tallies: make(map[string]*tally)}
			for _, judge := range Judges() {
				found[name].tallies[judge] = &tally{}
			}
		}
		for _, judge := range Judges() {
			found[name].tallies[judge].add(r, judge)
		}
	}
	var all []*row
	for _, r := range found {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *row) int { return slices.Compare(a.order, b.order) })
	return all
}

// note returns the remarks on a row.
func (r *row) note() string {
	d := r.tallies[Default]
	var notes []string
	if d.early > 0 {
		notes = append(notes, earlyNote(r.client()))
	}
	switch {
	case d.oldNeedless > 0:
		notes = append(notes, needlessNote(r.client()))
	case d.youngNeedless > 0:
		notes = append(notes, "too little was seen of a young app: a connection in doubt counts until it is closed")
	}
	return strings.Join(notes, "; ")
}

// client returns the row's last column before the figures.
func (r *row) client() string { return r.order[len(r.order)-1] }

const (
	hiddenBySideBySide = "the kernel does not tell the answers of calls side by side apart: a long one is not seen among short ones, and nothing says how long the next may take"
	sideBySide         = "the kernel does not tell answers side by side apart: a pause between two of them may be one call's work, and twice the longest pause is waited for"
	pausesOfStream     = "an answer that has paused may go on: twice the longest pause is waited for"
)

// earlyNote and needlessNote say what the kernel does not show about a client.
func earlyNote(client string) string {
	if client == grpcOverlap {
		return hiddenBySideBySide
	}
	return "**a defect**"
}

func needlessNote(client string) string {
	switch client {
	case http2Streams, grpcOverlap, "HTTP/2, streams of several lengths", "HTTP/2, the client pings, streams in work":
		return sideBySide
	case grpcStream, "headers flushed, then work", "half of the body, then work", "body in pieces, with pauses", "server-sent events, one every 6 s":
		return pausesOfStream
	}
	return "connections in doubt"
}

func (t *tally) needlessYoung() string { return of(t.youngNeedless, t.young) }
func (t *tally) needlessOld() string   { return of(t.oldNeedless, t.old) }

func of(n, all int) string {
	if all == 0 {
		return "–"
	}
	return fmt.Sprintf("%d of %d", n, all)
}

func share(n, all int) string {
	if all == 0 {
		return "–"
	}
	return fmt.Sprintf("%d (%.1f %%)", n, 100*float64(n)/float64(all))
}

// Markdown returns the tables.
func (s *Summary) Markdown() string {
	var out strings.Builder
	all := rows(s.results, func(*Result) []string { return []string{"all"} })
	if len(all) == 0 {
		return "No run was as it should be.\n"
	}
	out.WriteString("| the drain ends by | runs | early returns | needless waits, app young | needless waits, app with history |\n| --- | --- | --- | --- | --- |\n")
	titles := map[string]string{
		Default:     "Lastcall's default, `LASTCALL_APP_PORT` alone",
		Requests:    "`LASTCALL_TCP_COUNT=requests`, `LASTCALL_TCP_SILENCE=5s`",
		Connections: "connections until zero, looked at every second",
	}
	for _, judge := range Judges() {
		t := all[0].tallies[judge]
		fmt.Fprintf(&out, "| %s | %d | %s | %s of %d | %s of %d |\n", titles[judge], t.runs, share(t.early, t.runs), share(t.youngNeedless, t.young), t.young, share(t.oldNeedless, t.old), t.old)
	}
	if len(s.broken) > 0 {
		fmt.Fprintf(&out, "\n%d further runs do not count: a request of theirs failed, or a server did not do what it should.\n", len(s.broken))
	}

	out.WriteString("\n| of these runs | runs | early: default | early: requests, 5 s | early: connections | needless: default | needless: requests, 5 s | needless: connections |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, by := range []func(*Result) []string{
		func(r *Result) []string {
			return []string{"1", map[bool]string{false: "over loopback", true: "between two namespaces, 0.3 ms apart"}[r.Far]}
		},
		func(r *Result) []string {
			if r.Request == 0 {
				return []string{"2", "nothing in flight"}
			}
			return []string{"2" + fmt.Sprintf("%08.3f", r.Request.Seconds()), "a request of " + r.Request.String()}
		},
		func(r *Result) []string { return []string{"3", "the hook " + r.Hook.String() + " after its beginning"} },
		func(r *Result) []string {
			return []string{"4", transport(&r.Run)}
		},
	} {
		for _, r := range rows(s.results, by) {
			d, q, c := r.tallies[Default], r.tallies[Requests], r.tallies[Connections]
			fmt.Fprintf(&out, "| %s | %d | %d | %d | %d | %d | %d | %d |\n", r.order[1], d.runs, d.early, q.early, c.early,
				d.youngNeedless+d.oldNeedless, q.youngNeedless+q.oldNeedless, c.youngNeedless+c.oldNeedless)
		}
	}

	s.table(&out, "server", "client", func(r *Result) []string {
		if r.Server == patternServer {
			return nil
		}
		return []string{r.Server, transport(&r.Run), r.Client}
	})
	s.table(&out, "", "pattern", func(r *Result) []string {
		if r.Server != patternServer {
			return nil
		}
		return []string{"", transport(&r.Run), r.Client}
	})
	return out.String()
}

// table writes a row for each server, or for each pattern.
func (s *Summary) table(out *strings.Builder, server, client string, key func(*Result) []string) {
	all := rows(s.results, key)
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, func(a, b *row) int {
		return cmp.Or(
			cmp.Compare(serverOrder(a.order[0]), serverOrder(b.order[0])),
			cmp.Compare(strings.ToLower(a.order[1]), strings.ToLower(b.order[1])),
			slices.Compare(a.order, b.order))
	})
	first := ""
	if server != "" {
		first = "| " + server + " "
	}
	fmt.Fprintf(out, "\n%s| | %s | runs | early: default | requests, 5 s | connections | needless: default, young | default, with history | requests, 5 s | connections | note |\n", first, client)
	out.WriteString(strings.Repeat("| --- ", 11+strings.Count(first, "|")) + "|\n")
	for _, r := range all {
		if server != "" {
			fmt.Fprintf(out, "| %s ", serverTitle(r.order[0]))
		}
		d, q, c := r.tallies[Default], r.tallies[Requests], r.tallies[Connections]
		fmt.Fprintf(out, "| %s | %s | %d | %d | %d | %d | %s | %s | %d | %d | %s |\n", r.order[1], r.order[2], d.runs, d.early, q.early, c.early,
			d.needlessYoung(), d.needlessOld(), q.youngNeedless+q.oldNeedless, c.youngNeedless+c.oldNeedless, r.note())
	}
}

func transport(r *Run) string {
	if r.TLS {
		return "TLS"
	}
	return "cleartext"
}

func serverOrder(server string) int {
	names := append(http2Servers(), grpcServers()...)
	for i, s := range httpServers() {
		names = slices.Insert(names, i, s.name)
	}
	return slices.Index(names, server)
}

func serverTitle(server string) string {
	titles := map[string]string{
		goServer: "Go net/http", "node": "Node", "tomcat": "Tomcat", "netty": "Netty",
		"haproxy": "HAProxy", "php": "PHP-FPM behind nginx",
		"node-h2": "Node, HTTP/2", "tomcat-h2": "Tomcat, HTTP/2", "nginx-h2": "nginx, HTTP/2", "haproxy-h2": "HAProxy, HTTP/2",
	}
	return cmp.Or(titles[server], server)
}
