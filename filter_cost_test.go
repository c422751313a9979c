package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/core/message"
	"github.com/stagecoach-mta/stagecoach/core/pluginbench"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
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
		b.ReportMetric(row.CPURatio, "cpu-ratio")
	})
	b.Run("1MiB", func(b *testing.B) {
		rows := measured(b, program, "-c", "examples/attachments/conform.hcl", "--at", "16", "--time", "4s").Rows
		row := rows[len(rows)-1]
		report(b, row, row.CPURatio, 0.2)
	})
}

// BenchmarkFiveFilters is what a small mail costs that five filters judge at the
// same time, in five processes, through the chain as a listener runs it: CPU of all
// six processes, beside five bare streams to as many processes that carry the same.
// The goal of 200 µs was set where a bare echo took 11 to 17 µs, and says nothing on
// a slower or busy machine; the limit is twice the yardstick, which is stricter. One
// mail after the other, and 16 at once, where frames share writes and wake-ups.
func BenchmarkFiveFilters(b *testing.B) {
	for _, at := range []int{1, 16} {
		b.Run(fmt.Sprintf("at=%d", at), func(b *testing.B) { fiveFilters(b, at) })
	}
}

func fiveFilters(b *testing.B, at int) {
	const filters = 5
	dir, err := os.MkdirTemp("", "sc")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	h, err := host.New(host.Options{RunDir: dir, Log: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close(context.Background())
	var specs []host.Spec
	for i := range filters {
		specs = append(specs, host.Spec{
			Instance: fmt.Sprintf("filter.headers.%d", i), Kind: v1.Kind_KIND_FILTER, Plugin: "headers",
			ConfigJSON: []byte(`{"require": ["From", "To", "Date", "Subject", "Message-ID"]}`),
		})
	}
	change, err := h.Provision(b.Context(), specs)
	if err != nil {
		b.Fatal(err)
	}
	change.Commit()
	var chain filter.Chain
	work := pluginbench.Several{Name: "five filters", BareName: "five bare gRPC streams"}
	for _, s := range specs {
		in := h.Instance(s.Instance)
		if e := in.Interest().GetEffect(); e != v1.FilterInterest_JUDGE {
			b.Fatalf("%s is no judge: %v", s.Instance, e)
		}
		chain = append(chain, filter.Member{Name: s.Instance, Caller: in, Interest: in.Interest})
		work.PIDs = append(work.PIDs, in.Info().PID)
	}
	mail := conform.Ordinary().Text
	body, envelope := spool.FromBytes([]byte(mail)), conform.Envelope(int64(len(mail)))
	question := func(key string) filter.Question {
		return filter.Question{Event: v1.FilterEvent_MESSAGE, Envelope: envelope, Recipient: -1, Body: body, Key: key}
	}
	fields, err := message.Editor{}.Fields(body, chain[0].Interest().GetHeaderNames())
	if err != nil || len(fields) == 0 {
		b.Fatalf("%d fields: %v", len(fields), err)
	}
	work.Echo = &v1.Call{DeadlineMs: 30_000, Request: &v1.Call_Filter{Filter: &v1.FilterCall{
		Event: v1.FilterEvent_MESSAGE, Envelope: envelope, Recipient: -1, Header: fields, IdempotencyKey: "bench-1/MESSAGE/" + chain[0].Name,
	}}}
	var n atomic.Int64
	work.Work = func(ctx context.Context) error {
		out, err := chain.Run(ctx, message.Editor{}, question(fmt.Sprintf("bench-%d", n.Add(1))))
		if err != nil {
			return err
		}
		for _, s := range out.Trace {
			if s.Failed != "" || s.Verdict != v1.Verdict_ACCEPT {
				return fmt.Errorf("%s: %s %s", s.Filter, s.Verdict, s.Failed)
			}
		}
		if len(out.Trace) != filters {
			return fmt.Errorf("%d filters were asked", len(out.Trace))
		}
		return nil
	}
	row, err := work.Measure(b.Context(), pluginbench.Options{Command: []string{os.Args[0], "plugin", "yardstick"}, At: at, Time: 4 * time.Second})
	if err == nil && row.Plugin.Errors > 0 {
		err = errors.New(row.Plugin.Error)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(row.Plugin.TheirCPU+row.Plugin.OurCPU, "us/msg")
	b.ReportMetric(200, "us/msg-goal")
	b.ReportMetric(row.Bare.TheirCPU+row.Bare.OurCPU, "bare-us/msg")
	b.ReportMetric(row.CPURatio, "ratio")
	b.ReportMetric(row.TimeRatio, "time-ratio")
	b.ReportMetric(2, "limit")
}
