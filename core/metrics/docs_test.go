package metrics

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryFigureIsDocumented: docs/metrics.md names every family, with its
// labels, and none that is not there.
func TestEveryFigureIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|([a-z, ]*)\\|").FindAllStringSubmatch(string(b), -1) {
		documented[row[1]] = strings.TrimSpace(row[2])
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
		got, ok := documented[name]
		if !ok || got != strings.Join(labels, ", ") {
			t.Errorf("docs/metrics.md has %q as labels of %s (there: %t), it has %q", got, name, ok, strings.Join(labels, ", "))
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("docs/metrics.md tells of %s, which is not there", name)
	}
}
