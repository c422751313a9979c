package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// left are the files of the suite that are not run, and why. Nothing else is
// passed over.
var left = map[string]string{
	"execute/examples.svtest": "its scripts (../../examples) are not in the suite",
	"extensions/extlists":     "extlists is not announced",
	"extensions/metadata":     "mboxmetadata and servermetadata are not announced",
	"extensions/spamvirustest": "spamtest, spamtestplus and virustest are not announced: " +
		"tags of filters say more, and routes read them",
	"extensions/vnd.dovecot": "extensions of Dovecot's own are not announced",
	"plugins/extprograms":    "vnd.dovecot.pipe, filter and execute are not announced: a user's script runs no program",
}

// TestSuite runs testdata/suite, and with SUITES=DIR all of DIR/sieve/tests but
// for what left names.
func TestSuite(t *testing.T) {
	runSuite(t, "testdata/suite", 1, 4, nil)
	if dir := os.Getenv("SUITES"); dir != "" {
		runSuite(t, filepath.Join(dir, "sieve", "tests"), 121, 579, left)
	}
}

func runSuite(t *testing.T, root string, files, want int, left map[string]string) {
	var names []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && (strings.HasSuffix(path, ".svtest") || strings.HasSuffix(path, ".svtest.in")) {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	ran, passed, all, out, outTests := 0, 0, 0, 0, 0
	for _, path := range names {
		name, _ := filepath.Rel(root, path)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		count := strings.Count("\n"+string(text), "\ntest \"") + strings.Count("\n"+string(text), "\ntest\"")
		if why := excused(name, left, used); why != "" {
			out++
			outTests += count
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			f := newSuiteFile(t, path)
			f.doomed = strings.HasPrefix(name, "failures/")
			f.run(string(text))
			if f.doomed && f.faults == 0 {
				t.Error("it passes, and should fail")
			}
			if f.doomed {
				f.passed, f.failed = max(count, 1), 0
			}
			passed += f.passed
			all += f.passed + f.failed
		})
	}
	t.Logf("%s: %d/%d tests in %d files pass; %d files with %d tests are left out", root, passed, all, ran, out, outTests)
	if ran != files || passed != want || all != want {
		t.Errorf("%s: %d of %d tests in %d files pass, want %d in %d", root, passed, all, ran, want, files)
	}
	for name := range left {
		if !used[name] {
			t.Errorf("%s is left out, and is not there", name)
		}
	}
}

func excused(name string, left map[string]string, used map[string]bool) string {
	for _, prefix := range slices.Sorted(func(yield func(string) bool) {
		for k := range left {
			if !yield(k) {
				return
			}
		}
	}) {
		if name == prefix || strings.HasPrefix(name, prefix+"/") {
			used[prefix] = true
			return left[prefix]
		}
	}
	return ""
}
