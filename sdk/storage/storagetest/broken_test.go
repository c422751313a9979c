package storagetest_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
	"github.com/stagecoach-mta/stagecoach/sdk/storage/storagetest"
)

// look runs the suite on a storage in memory with something wrong about it.
func look(t *testing.T, with func() tampering) *conform.Report {
	t.Helper()
	r := &conform.Runner{Timeout: 30 * time.Second}
	report := r.Run(t.Context(), func(ct conform.T) {
		storagetest.Run(ct, func(ct conform.T) storage.Storage {
			return &tampered{sdktest.NewStorage(ct.TempDir()), with()}
		}, storagetest.Options{LargeBytes: 1 << 20, Added: true})
	})
	if report.Problem != "" {
		t.Error(report.Problem)
	}
	return report
}

// TestGood: nothing wrong, nothing found; and every case has a mode that fails it.
func TestGood(t *testing.T) {
	t.Parallel()
	for _, r := range look(t, func() tampering { return tampering{} }).Results {
		if r.Status != conform.Pass {
			t.Errorf("%s: %s %q", r.Check, r.Status, r.Seen)
		}
		if !slices.ContainsFunc(slices.Concat(modes, addedModes, annotationModes, adminModes), func(m mode) bool { return slices.Contains(m.fails, r.Check) }) {
			t.Errorf("%s: no mode breaks it", r.Check)
		}
	}
}

// TestBroken: each mode fails its cases and no others, with words to act on.
func TestBroken(t *testing.T) {
	for _, m := range slices.Concat(modes, addedModes, annotationModes, adminModes) {
		t.Run(m.broken, func(t *testing.T) {
			t.Parallel()
			failed := map[string]bool{}
			for _, r := range look(t, m.with).Results {
				if r.Status != conform.Fail {
					continue
				}
				failed[r.Check] = true
				if len(r.Seen) == 0 || r.Contract == "" || r.Remedy == "" {
					t.Errorf("%s: seen %q, contract %q, remedy %q", r.Check, r.Seen, r.Contract, r.Remedy)
				}
				if !slices.Contains(m.fails, r.Check) {
					t.Errorf("%q failed too: %s", r.Check, strings.Join(r.Seen, "\n"))
				}
			}
			for _, f := range m.fails {
				if !failed[f] {
					t.Errorf("%q did not fail; %q did", f, slices.Sorted(maps.Keys(failed)))
				}
			}
		})
	}
}
