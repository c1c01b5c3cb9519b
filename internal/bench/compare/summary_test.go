package compare

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// some returns possible results of a comparison.
func some() []Result {
	failures := func(n int) []error { return make([]error, n) }
	s := time.Second
	return []Result{
		{Scenario: ByRegistry, Approach: "no hook", Requests: 50, Failures: failures(9), Early: true},
		{Scenario: ByEndpoints, Approach: "`sleep 30`", Requests: 100, Took: 30 * s, Wasted: 26 * s},
		{Scenario: ByEndpoints, Approach: "connections", Requests: 100, Took: 91 * s, Wasted: 86 * s},
		{Scenario: ByEndpoints, Approach: "connections", Requests: 100, Took: 6 * s, Wasted: 2 * s},
		{Scenario: ByEndpoints, Approach: "connections", Requests: 100, Took: 60 * s, Wasted: 50 * s},
		{Scenario: ByEndpoints, Approach: Lastcall, Requests: 100, Took: 4 * s, Wasted: 1020 * time.Millisecond},
		{Scenario: ByRegistry, Approach: "connections", Requests: 10, Failures: failures(7), Took: 100 * s, Early: true, Cut: true},
		{Scenario: ByRegistry, Approach: Lastcall, Requests: 100, Took: 4 * s, Wasted: 1010 * time.Millisecond},
	}
}

func TestMarkdown(t *testing.T) {
	got := Summarize(some(), time.Second).Markdown()
	for _, want := range []string{
		"**Clients that come by Kubernetes' endpoints**\n\n| | failed requests |",
		"| `sleep 30` | 0 | 30.0 s | 26.0 s | 1, 100 |",
		"| connections | 0 | 60.0 s, at most 91.0 s | 50.0 s, at most 86.0 s | 3, 300 |",
		"| Lastcall, `tcp` | 0 | 4.00 s | 1.02 s; less LASTCALL_QUIET 20 ms, at most 20 ms | 1, 100 |",
		"| no hook | 9 | 0.00 s | –: it left too early | 1, 50 |",
		"| connections | 7 | 100.0 s, the grace period's end (1 of 1 runs) | –: there was still work | 1, 10 |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q in\n%s", want, got)
		}
	}
	if strings.Index(got, "`sleep 30`") > strings.Index(got, "connections") {
		t.Errorf("not in the order of their first appearance:\n%s", got)
	}
}

func TestVerdict(t *testing.T) {
	s := Summarize(some(), time.Second)
	if got := s.Verdict(ByEndpoints); !strings.Contains(got, "lost none of 100 requests and wasted 1.02 s in the median, 20 ms of it beyond LASTCALL_QUIET. The nearest other that lost none is `sleep 30`: it wasted 26.0 s, 25 times as much") {
		t.Error(got)
	}
	if got := s.Verdict(ByRegistry); !strings.HasSuffix(got, "each of the others lost some.") {
		t.Error(got)
	}
	lost := append(some(), Result{Scenario: ByRegistry, Approach: Lastcall, Failures: []error{errors.New("EOF")}})
	if got := Summarize(lost, time.Second).Verdict(ByRegistry); !strings.HasPrefix(got, "**Lastcall lost requests: 1, at most 1") && !strings.HasPrefix(got, "**Lastcall lost requests: 1.**") {
		t.Error(got)
	}
	if got := (Summary{}).Verdict(ByRegistry); got != "Lastcall was not run." {
		t.Error(got)
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []int
		want   Spread[int]
	}{
		{nil, Spread[int]{}},
		{[]int{4}, Spread[int]{4, 4}},
		{[]int{9, 1, 5}, Spread[int]{5, 9}},
		{[]int{4, 2}, Spread[int]{4, 4}},
	} {
		if got := spread(test.values); got != test.want {
			t.Errorf("%v: %v, want %v", test.values, got, test.want)
		}
	}
}

// The chart is XML, stays within its frame, and shows the failed requests.
func TestSVG(t *testing.T) {
	rarely := []Result{{Scenario: ByEndpoints, Approach: "luck"}, {Scenario: ByEndpoints, Approach: "luck"}, {Scenario: ByEndpoints, Approach: "luck", Failures: make([]error, 3)}}
	text := Summarize(append(some(), rarely...), time.Second).SVG()
	decoder := xml.NewDecoder(strings.NewReader(text))
	bars := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars < 6+3 {
		t.Errorf("%d bars in\n%s", bars, text)
	}
	for _, want := range []string{"sleep 30", "26.0 s wasted", "9 failed", "none failed", "then cut off", "up to 3 failed"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
}
