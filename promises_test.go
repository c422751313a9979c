package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestPromisesNameTheirTests: every test that docs/promises.md tells of is there, and
// each promise has one that checks it and one with a planted bug.
func TestPromisesNameTheirTests(t *testing.T) {
	page, err := os.ReadFile("docs/promises.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	goFiles(t, func(path string) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(b), -1) {
			there[f[1]] = true
		}
	})
	named := regexp.MustCompile(`Test[A-Z]\w+`)
	rows := regexp.MustCompile(`(?m)^\| (\d) \|.*$`).FindAllString(string(page), -1)
	if len(rows) != 7 {
		t.Fatalf("docs/promises.md has %d promises, DESIGN.md has 7", len(rows))
	}
	for _, row := range rows {
		cells := strings.Split(row, " | ")
		if len(cells) != 5 || !named.MatchString(cells[3]) || !named.MatchString(cells[4]) {
			t.Errorf("a promise without a test or without a planted bug: %s", row)
		}
	}
	for _, name := range named.FindAllString(string(page), -1) {
		if !there[name] {
			t.Errorf("docs/promises.md tells of %s, which is not there", name)
		}
	}
}
