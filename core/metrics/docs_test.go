package metrics

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryFigureIsDocumented: docs/metrics.md names every family, with its kind,
// unit and labels, and none that is not there, in its alerts either.
func TestEveryFigureIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|([a-z, ]*)\\|([a-z, ]*)\\|").FindAllStringSubmatch(string(b), -1) {
		documented[row[1]] = strings.TrimSpace(row[2]) + "; " + strings.TrimSpace(row[3])
	}
	s := serverOf(&strings.Builder{}, tells("x"))
	for _, v := range s.meters.all() {
		v.with(make([]string, len(v.labels))...)
	}
	p := s.page(t.Context())
	for _, name := range slices.Sorted(maps.Keys(p.families)) {
		f := p.families[name]
		var labels []string
		for _, l := range f.samples[0].labels {
			if l.name != "le" {
				labels = append(labels, l.name)
			}
		}
		want := strings.TrimSpace(string(f.kind)+unitOf(name)) + "; " + strings.Join(labels, ", ")
		if got := documented[name]; got != want {
			t.Errorf("docs/metrics.md has %q of %s, want %q: kind with unit; labels", got, name, want)
		}
		delete(documented, name)
	}
	_, alerts, _ := strings.Cut(string(b), "## Worth an alert")
	exprs := regexp.MustCompile(`stagecoach_[a-z_]+`).FindAllString(alerts, -1)
	for _, name := range exprs {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count"), "_sum")
		if p.families[name] == nil && p.families[base] == nil {
			t.Errorf("an alert asks for %s, which is not there", name)
		}
	}
	if len(exprs) < 8 {
		t.Errorf("%d figures in alerts", len(exprs))
	}
	for name := range documented {
		t.Errorf("docs/metrics.md tells of %s, which is not there", name)
	}
}

// unitOf is what a name says of its unit, as Prometheus has it; "": a number of things.
func unitOf(name string) string {
	switch name = strings.TrimSuffix(name, "_total"); {
	case strings.HasSuffix(name, "_seconds"):
		return " of seconds"
	case strings.HasSuffix(name, "_bytes"):
		return " of octets"
	}
	return ""
}
