package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/core/pluginbench"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// TestTenPluginsAreSmall: ten bundled plugins that have nothing to do take at most
// 80 MB of the machine together, each in a process and a sandbox of its own.
func TestTenPluginsAreSmall(t *testing.T) {
	path, dir := onLoopback(t, "configs/dev.hcl")
	apart(t, path)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Before the routes of the file, of which the last one takes every mail.
	text = append([]byte(`
filter "headers" "one" {}
filter "headers" "two" {}
filter "headers" "three" {}
filter "headers" "four" {}
deliver "pipe" "program" { command = ["/bin/cat"] }
storage "maildir" "other" {}
deliver "storage" "other" { storage = storage.maildir.other }
receive "smtp" "more" {
  listen  = ["127.0.0.9:0"]
  filters = [filter.headers.one, filter.headers.two, filter.headers.three, filter.headers.four]
}
route "program" {
  when    = recipient.local == "program"
  deliver = deliver.pipe.program
}
route "other" {
  when    = recipient.local == "other"
  deliver = deliver.storage.other
}
`), text...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	// The program as it is shipped: the test's own is bigger, and so would be all
	// of its plugins.
	program := filepath.Join(dir, "stagecoach")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	coldCache(t, program)
	server := exec.Command(program, "serve", "-c", path)
	var log safeBuffer
	server.Stderr = &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		server.Process.Signal(syscall.SIGTERM)
		if err := server.Wait(); err != nil {
			t.Errorf("%v\n%s", err, log.String())
		}
	}()
	var total int64
	eventually(t, func() error {
		code, out, errs := run(t, "plugin", "list", "--json", "-c", path)
		var ps []admin.Plugin
		if err := json.Unmarshal([]byte(out), &ps); code != command.ExitOK || err != nil {
			return fmt.Errorf("exit %d, %w\n%s", code, err, errs)
		}
		total = 0
		for _, p := range ps {
			if p.State != string(host.Ready) || p.PSS == 0 {
				return fmt.Errorf("%s is %s with %d octets", p.Instance, p.State, p.PSS)
			}
			if time.Since(p.Since) < 3*time.Second {
				return fmt.Errorf("%s has not given back yet what its start took", p.Instance)
			}
			total += p.PSS
		}
		if len(ps) != 10 {
			return fmt.Errorf("%d plugins", len(ps))
		}
		return nil
	})
	t.Logf("%.1f MB", float64(total)/1e6)
	// How the page cache holds the program is luck, of up to 8 MB.
	if total > 88e6 {
		t.Errorf("ten idle plugins take %.1f MB, far more than 80", float64(total)/1e6)
	}
}

// coldCache lets a program come from the disk, as an installed one does: what its
// linker wrote lies in memory in large pieces, and processes map all of a piece of
// which they touch a page.
func coldCache(t *testing.T, program string) {
	t.Helper()
	f, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkPluginStart is from the order to start a bundled plugin until it is
// ready for calls: handshake, AutoMTLS, Describe, Configure and Ready, and in a
// sandbox the way into it. Beside it, in turns, starts a process of the same program
// that does nothing but make a certificate and answer one call over TLS. The goal of
// 60 ms is for the machine of issue 3; the fastest of the starts is what other work on
// the machine disturbs least.
func BenchmarkPluginStart(b *testing.B) {
	for name, box := range map[string]*host.Sandbox{"free": nil, "sandbox": {}} {
		b.Run(name, func(b *testing.B) {
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
			spec := host.Spec{Instance: "filter.headers.h", Kind: v1.Kind_KIND_FILTER, Plugin: "headers", ConfigJSON: []byte("{}"), Sandbox: box}
			var starts, bare []time.Duration
			for b.Loop() {
				began := time.Now()
				c, err := h.Provision(b.Context(), []host.Spec{spec})
				starts = append(starts, time.Since(began))
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				c.Abort()
				bare = append(bare, bareStart(b))
				b.StartTimer()
			}
			slices.Sort(starts)
			slices.Sort(bare)
			ms := func(list []time.Duration, i int) float64 { return float64(list[i].Microseconds()) / 1000 }
			half := len(starts) / 2
			b.ReportMetric(ms(starts, 0), "ms/fastest")
			b.ReportMetric(ms(starts, half), "ms/median")
			b.ReportMetric(60, "ms-goal")
			b.ReportMetric(ms(bare, 0), "bare-ms/fastest")
			b.ReportMetric(ms(bare, half), "bare-ms/median")
			b.ReportMetric(ms(starts, 0)/ms(bare, 0), "ratio")
		})
	}
}

func bareStart(b *testing.B) time.Duration {
	b.Helper()
	dir, err := os.MkdirTemp("", "sc")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	took, err := pluginbench.BareStart(b.Context(), []string{os.Args[0], "plugin", "yardstick"}, dir)
	if err != nil {
		b.Fatal(err)
	}
	return took
}
