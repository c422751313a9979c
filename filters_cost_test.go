package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins"
)

// BenchmarkEachFilter is what an ordinary small mail costs in each bundled filter, 16
// at once, configured as in the conformance runs: CPU of the plugin and of who asks
// it, and beside a bare gRPC stream that carries the same. docs/filters.md tells the
// ratios. Where a filter asks the DNS nobody answers, and a scanner is a stand-in: it
// is the filter's own cost.
func BenchmarkEachFilter(b *testing.B) {
	for _, p := range plugins.Bundled() {
		if p.Filter == nil {
			continue
		}
		b.Run(p.Name, func(b *testing.B) {
			c, dir := bundled[p.Name], b.TempDir()
			if c.prepare != nil {
				if err := c.prepare(dir); err != nil {
					b.Fatal(err)
				}
			}
			if c.serve != nil {
				c.serve(b, dir)
			}
			config := filepath.Join(dir, "config.hcl")
			if err := os.WriteFile(config, []byte(strings.ReplaceAll(c.block, "DIR", dir)), 0o600); err != nil {
				b.Fatal(err)
			}
			row := measured(b, p.Name, "-c", config, "--at", "16", "--time", "2s").Rows[0]
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(row.Plugin.TheirCPU, "plugin-us/call")
			b.ReportMetric(row.Plugin.OurCPU, "core-us/call")
			b.ReportMetric(row.Bare.TheirCPU+row.Bare.OurCPU, "bare-us/call")
			b.ReportMetric(row.CPURatio, "ratio")
		})
	}
}
