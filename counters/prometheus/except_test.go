package prometheus

import "lastcall/counters/countertest"

// Except returns the rows of the suite that do not apply to a page of metrics.
func (h harness) Except() map[countertest.Row]string {
	except := map[countertest.Row]string{
		countertest.Missing: "a page does not say which series it should have; that it has none that match is an error, tried by Break",
		countertest.Stale:   "a page counts nothing that must grow with each reading, so a copy without a date looks like the page; dates, ages and timestamps are tried apart",
	}
	if !h.Arrivals() {
		except[countertest.Arrivals] = "a gauge of requests in flight does not tell that one has come and gone"
	}
	return except
}
