package metrics

import (
	"math"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

func text(t *testing.T, p *page) string {
	t.Helper()
	for _, err := range p.faults {
		t.Error(err)
	}
	var b strings.Builder
	if err := p.write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// parse reads a page as Prometheus does.
func parse(t *testing.T, s string) map[string]*dto.MetricFamily {
	t.Helper()
	var parser expfmt.TextParser
	f, err := parser.TextToMetricFamilies(strings.NewReader(s))
	if err != nil {
		t.Fatalf("%v\n%s", err, s)
	}
	return f
}

func TestPageIsWhatPrometheusReads(t *testing.T) {
	p := newPage()
	odd := "a \"b\" \\ c\nd é"
	p.put("b", counter, "two\nlines \\ and \"quotes\"", 3, label{"x", odd})
	p.put("b", counter, "another help", 4, label{"x", "y"})
	p.put("a", gauge, "", math.Inf(1))
	p.put("c", gauge, "a small one", 1e-7)
	got := text(t, p)
	want := "# HELP a \n# TYPE a gauge\na +Inf\n" +
		"# HELP b two\\nlines \\\\ and \"quotes\"\n# TYPE b counter\nb{x=\"a \\\"b\\\" \\\\ c\\nd é\"} 3\nb{x=\"y\"} 4\n" +
		"# HELP c a small one\n# TYPE c gauge\nc 1e-07\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	f := parse(t, got)
	if l := f["b"].GetMetric()[0].GetLabel()[0]; l.GetValue() != odd {
		t.Errorf("the label came back as %q", l.GetValue())
	}
}

func TestPageRefuses(t *testing.T) {
	p := newPage()
	p.put("taken", gauge, "", 1, label{"a", "b"})
	p.putHistogram("h", "", []float64{1}, []uint64{0, 0}, 0)
	for what, try := range map[string]func() error{
		"a name with a dot":         func() error { _, err := p.declare("a.b", gauge, ""); return err },
		"a name with a digit first": func() error { _, err := p.declare("1a", gauge, ""); return err },
		"no name":                   func() error { _, err := p.declare("", gauge, ""); return err },
		"another type":              func() error { _, err := p.declare("taken", counter, ""); return err },
		"a histogram's series":      func() error { _, err := p.declare("h_count", counter, ""); return err },
		"a line end in a label name": func() error {
			f, _ := p.declare("l", gauge, "")
			return p.add(f, "", []label{{"a\nb 1\nc", ""}}, 1)
		},
		"a label twice": func() error {
			f, _ := p.declare("l", gauge, "")
			return p.add(f, "", []label{{"a", ""}, {"a", "b"}}, 1)
		},
		"a series twice": func() error {
			f, _ := p.declare("taken", gauge, "")
			return p.add(f, "", []label{{"a", "b"}}, 1)
		},
	} {
		if try() == nil {
			t.Error(what, "was taken")
		}
	}
	parse(t, text(t, p))
}

func TestHistogram(t *testing.T) {
	v := newVec(histogram, "h_seconds", "times", "x")
	v.bounds = []float64{0.1, 1}
	for _, d := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 3 * time.Second} {
		v.observe(v.with("a"), d)
	}
	p := newPage()
	v.collect(p)
	h := parse(t, text(t, p))["h_seconds"].GetMetric()[0].GetHistogram()
	b := h.GetBucket()
	if h.GetSampleCount() != 4 || math.Abs(h.GetSampleSum()-3.65) > 1e-9 || len(b) != 3 ||
		b[0].GetCumulativeCount() != 2 || b[1].GetCumulativeCount() != 3 || b[2].GetCumulativeCount() != 4 || !math.IsInf(b[2].GetUpperBound(), 1) {
		t.Errorf("%v", h)
	}
}
