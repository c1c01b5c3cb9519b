package prometheus

import (
	"bytes"
	"maps"
	"math"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// FuzzParse compares the parser with Prometheus' own. What both accept must
// have the same result, and this parser must not accept what is not a sample
// there.
func FuzzParse(f *testing.F) {
	for line := range bytes.Lines([]byte(page)) {
		f.Add(line)
	}
	for _, line := range []string{
		"up 1 1700000000000\n", "up{} 1\n", "up{a=\"1\",} 1\n", "up {a=\"\\\\\\\"\\n\"} 1\n", `{"up",a="1"} 3` + "\n", `{"a b"="1","up"} 3` + "\n",
		"up 1e3\n", "up +Inf\n", "up NaN\n", "up -1\n", "up 0x1\n", "up 1_0\n", "up 1 \n", "up 1e309\n", "up -1e309\n", "up 1e-400\n", "up{a=\"1\",a=\"2\"} 1\n", "up{a=\"1\"b=\"2\"} 1\n", "up{,} 1\n", "up{a=\"1\"}1\n",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' || line[0] == '#' || line[0] == '\n' || line[0] == ' ' || line[0] == '\t' {
			return // pick does not return such a line
		}
		l := scanner{rest: line}
		name, got, err := l.sample()
		if err != nil {
			return
		}
		p := expfmt.NewTextParser(model.UTF8Validation)
		// Prometheus accepts blanks at the end of a line; this parser does not.
		whole := append(bytes.Clone(bytes.TrimRight(line, " \t\n")), '\n')
		families, err := p.TextToMetricFamilies(bytes.NewReader(whole))
		if err != nil {
			t.Fatalf("%q is read as %s %v, and is not to be read: %v", line, name, got, err)
		}
		metrics := families[name].GetMetric()
		if len(metrics) != 1 {
			t.Fatalf("%q is read as %q, want %v", line, name, families)
		}
		labels := map[string]string{}
		for _, pair := range metrics[0].GetLabel() {
			labels[pair.GetName()] = pair.GetValue()
		}
		if want := metrics[0].TimestampMs; (want != nil) != got.stamped || want != nil && got.time.UnixMilli() != *want {
			t.Fatalf("%q is read as of %v, want %v", line, got.time, want)
		}
		value := metrics[0].GetUntyped().GetValue()
		if !maps.Equal(labels, got.labels) || value != got.value && !(math.IsNaN(value) && math.IsNaN(got.value)) {
			t.Fatalf("%q is read as %v, want %v %v", line, got, labels, value)
		}
	})
}

// TestReadsWhatPrometheusReads tests the other direction, for lines that
// exporters write.
func TestReadsWhatPrometheusReads(t *testing.T) {
	for line := range bytes.Lines([]byte(page)) {
		p := expfmt.NewTextParser(model.UTF8Validation)
		families, theirs := p.TextToMetricFamilies(bytes.NewReader(line))
		if len(families) == 0 && theirs == nil {
			continue // a comment
		}
		l := scanner{rest: bytes.TrimLeft(line, " \t")} // as pick returns it
		if _, _, ours := l.sample(); (ours == nil) != (theirs == nil) {
			t.Errorf("%q: %v, want %v", line, ours, theirs)
		}
	}
}
