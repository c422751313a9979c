package metrics

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// kind of a family, in the words of the text format.
type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// label is a name and a value.
type label struct{ name, value string }

// page is one answer under way. It refuses what would make Prometheus refuse
// the whole of it: a name that is none, a family with two types, a series that
// is there twice.
type page struct {
	families map[string]*family
	// owner of each sample name: a histogram x owns x_bucket, x_sum and x_count.
	owner map[string]*family
	seen  map[string]bool
	// faults of the core's own figures: a defect of ours, for the log.
	faults []error
}

type family struct {
	name, help string
	kind       kind
	samples    []sample
}

type sample struct {
	name   string
	labels []label
	value  float64
}

func newPage() *page {
	return &page{families: map[string]*family{}, owner: map[string]*family{}, seen: map[string]bool{}}
}

// declare opens a family. The first help stands.
func (p *page) declare(name string, k kind, help string) (*family, error) {
	if f := p.families[name]; f != nil {
		if f.kind != k {
			return nil, fmt.Errorf("%s is a %s here and a %s elsewhere", name, k, f.kind)
		}
		return f, nil
	}
	if !validName(name) {
		return nil, fmt.Errorf("%q is no name of a metric: use letters, digits and _, and begin with a letter", name)
	}
	names := []string{name}
	if k == histogram {
		names = append(names, name+"_bucket", name+"_sum", name+"_count")
	}
	for _, n := range names {
		if o := p.owner[n]; o != nil {
			return nil, fmt.Errorf("%s belongs to the %s %s", n, o.kind, o.name)
		}
	}
	f := &family{name: name, help: help, kind: k}
	for _, n := range names {
		p.owner[n] = f
	}
	p.families[name] = f
	return f, nil
}

// add puts one sample into f. suffix is that of a histogram's series.
func (p *page) add(f *family, suffix string, labels []label, value float64) error {
	s := sample{name: f.name + suffix, labels: labels, value: value}
	for i, l := range labels {
		if !validLabel(l.name) {
			return fmt.Errorf("%q is no name of a label of %s: use letters, digits and _, and begin with a letter", l.name, f.name)
		}
		for _, other := range labels[:i] {
			if other.name == l.name {
				return fmt.Errorf("the label %s stands twice at %s", l.name, f.name)
			}
		}
	}
	key := s.series()
	if p.seen[key] {
		return fmt.Errorf("%s is there twice", key)
	}
	p.seen[key] = true
	f.samples = append(f.samples, s)
	return nil
}

// put is declare and add for the core's own figures.
func (p *page) put(name string, k kind, help string, value float64, labels ...label) {
	f, err := p.declare(name, k, help)
	if err == nil {
		err = p.add(f, "", labels, value)
	}
	if err != nil {
		p.faults = append(p.faults, err)
	}
}

// series is the sample's name and labels as the text format has them.
func (s *sample) series() string {
	if len(s.labels) == 0 {
		return s.name
	}
	var b strings.Builder
	b.WriteString(s.name)
	b.WriteByte('{')
	for i, l := range s.labels {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(l.name)
		b.WriteString(`="`)
		b.WriteString(labelEscaper.Replace(l.value))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

// The text format, version 0.0.4, escapes these and nothing else.
var (
	labelEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
	helpEscaper  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
)

// contentType is the text format that write writes.
const contentType = "text/plain; version=0.0.4; charset=utf-8"

// write writes the page, families by name.
func (p *page) write(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(p.families)) {
		f := p.families[name]
		if len(f.samples) == 0 {
			continue
		}
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, helpEscaper.Replace(f.help), name, f.kind)
		for _, s := range f.samples {
			fmt.Fprintf(b, "%s %s\n", s.series(), number(s.value))
		}
	}
	return b.Flush()
}

// number writes a value; ±Inf and NaN are spelt as the format wants them.
func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func validName(s string) bool { return validLabel(strings.ReplaceAll(s, ":", "_")) }

// validLabel: a name that begins with __ is Prometheus's own.
func validLabel(s string) bool {
	if s == "" || len(s) > 200 || strings.HasPrefix(s, "__") {
		return false
	}
	for i, c := range s {
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return true
}
