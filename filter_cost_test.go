package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/core/pluginbench"
)

// measured runs `stagecoach plugin bench` with these words, for as long as the
// benchmark is to take.
func measured(b *testing.B, args ...string) *pluginbench.Report {
	b.Helper()
	var out, errs bytes.Buffer
	a := app()
	a.Stdin, a.Stdout, a.Stderr = strings.NewReader(""), &out, &errs
	args = append([]string{"plugin", "bench", "--json"}, args...)
	if code := a.Run(context.Background(), args); code != command.ExitOK {
		b.Fatalf("%s: exit %d\n%s", strings.Join(args, " "), code, errs.String())
	}
	var rep pluginbench.Report
	if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
		b.Fatal(err)
	}
	return &rep
}

// BenchmarkFilterCall is the price of asking a filter in another process, beside a
// bare gRPC stream that carries the same: with a small message at most 1.5 of it,
// 16 calls at once; with one of 1 MiB, which is handed over by reference and read,
// at most a fifth.
func BenchmarkFilterCall(b *testing.B) {
	program := filepath.Join(b.TempDir(), "attachments")
	if out, err := exec.Command("go", "build", "-o", program, "./examples/attachments").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	report := func(b *testing.B, row pluginbench.Row, ratio, limit float64) {
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(row.Plugin.TheirCPU+row.Plugin.OurCPU, "cpu-µs/call")
		b.ReportMetric(row.Bare.TheirCPU+row.Bare.OurCPU, "bare-cpu-µs/call")
		b.ReportMetric(ratio, "ratio")
		b.ReportMetric(limit, "limit")
	}
	b.Run("small", func(b *testing.B) {
		row := measured(b, "headers", "--at", "16", "--time", "4s").Rows[0]
		report(b, row, row.TimeRatio, 1.5)
	})
	b.Run("1MiB", func(b *testing.B) {
		rows := measured(b, program, "-c", "examples/attachments/conform.hcl", "--at", "16", "--time", "4s").Rows
		row := rows[len(rows)-1]
		report(b, row, row.CPURatio, 0.2)
	})
}
