// Package exec is a filter that runs a program for each message: the message on
// its standard input, the envelope in its environment, the verdict in its exit
// status. It is how somebody filters without any SDK. It is no shell: arguments
// are passed as they are written. Delivering into a program is package pipe's.
package exec

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// What is read of a program's standard output.
const (
	judge   = "judge"   // nothing
	headers = "headers" // fields to add
	rewrite = "rewrite" // the message in place of the one there was
)

// Config of a filter "exec" block.
type Config struct {
	Command   []string          `hcl:"command" doc:"The program and its arguments. {sender}, {client}, {hello}, {user} and {queue_id} stand for the mail's; no shell is involved." example:"[\"/usr/local/bin/check\", \"--from\", \"{sender}\"]"`
	Mode      string            `hcl:"mode,optional" oneof:"judge,headers,rewrite" doc:"What its standard output is: nothing that counts, header fields to add at the top, or the whole message as it shall be."`
	Exit      map[string]string `hcl:"exit,optional" doc:"What exit statuses mean, beside or in place of the usual ones: accept, reject, defer, hold, discard or fail, and for reject and defer a code and an enhanced code." example:"{ \"1\" = \"reject 550 5.7.1\", \"99\" = \"discard\" }"`
	Env       map[string]string `hcl:"env,optional" doc:"Further variables of its environment." example:"{ \"RULES\" = \"/etc/rules\" }"`
	MaxTime   time.Duration     `hcl:"max_time,optional" doc:"How long one run may take; then its process group is killed and the block's on_failure decides."`
	MaxOutput schema.Size       `hcl:"max_output,optional" doc:"How much it may print, in mode rewrite; 64KB in mode headers."`
	MaxSize   schema.Size       `hcl:"max_size,optional" doc:"The program does not see larger messages: they pass. 0: it sees all."`
}

// maxFields bounds what a program prints in mode headers.
const maxFields = 64 << 10

// maxConcurrent bounds the programs that run at the same time.
const maxConcurrent = 16

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Validate points at what cannot work.
func (c *Config) Validate() error {
	if len(c.Command) == 0 || !filepath.IsAbs(c.Command[0]) {
		return schema.Errorf(schema.Path("command"), "the first word must be the program's absolute path")
	}
	for i, word := range c.Command {
		if strings.Contains(word, "\x00") {
			return schema.Errorf(schema.Path("command", i), "no program can be given a NUL")
		}
	}
	if _, err := statuses(c.Exit); err != nil {
		return schema.Errorf(schema.Path("exit"), "%v", err)
	}
	for name, value := range c.Env {
		if !variable.MatchString(name) || strings.Contains(value, "\x00") {
			return schema.Errorf(schema.Path("env"), "%q = %q is no variable: a name has letters, digits and _, and nothing has a NUL", name, value)
		}
	}
	for attribute, wrong := range map[string]bool{"max_time": c.MaxTime <= 0, "max_output": c.MaxOutput <= 0, "max_size": c.MaxSize < 0} {
		if wrong {
			return schema.Errorf(schema.Path(attribute), "must be more than nothing")
		}
	}
	return nil
}

// Interest is narrowed to what the mode needs.
func (c *Config) Interest() *v1.FilterInterest {
	in := interest(v1.FilterInterest_EDIT)
	if c.Mode == judge {
		in.Effect = v1.FilterInterest_JUDGE
	}
	in.MaxSize = int64(c.MaxSize)
	return in
}

func interest(effect v1.FilterInterest_Effect) *v1.FilterInterest {
	return &v1.FilterInterest{
		Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE, v1.FilterEvent_ROUTE, v1.FilterEvent_PRE_DELIVERY},
		Body:   v1.FilterInterest_FULL, Effect: effect,
		// Only the message's own octets are looked at.
		HeaderNames: []string{"none"},
	}
}

// Filter is one instance.
type Filter struct {
	Config
	statuses map[int]meaning
	bodies   *filter.Bodies
	hostname string
	log      zerolog.Logger
	metrics  *sdk.Metrics
}

var _ filter.Filter = (*Filter)(nil)

// Filter runs the program and makes a verdict of what it did.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	begin := time.Now()
	run, err := f.run(ctx, ev)
	f.metrics.Histogram("run_seconds", "Time that a run takes.", sdk.Seconds()).Since(begin)
	if err != nil {
		f.count("fail")
		return nil, err
	}
	m, known := f.statuses[run.status]
	if !known || m.action == "fail" {
		f.count("fail")
		f.log.Warn().Int("status", run.status).Str("stderr", run.said).Str("transaction", ev.Envelope.GetTransaction()).Msg("the program gave no verdict")
		return nil, fmt.Errorf("the program ended with status %d, which is no verdict: %s", run.status, lastLine(run.said, "it said nothing"))
	}
	f.count(m.action)
	v := m.verdict(lastLine(run.said, ""))
	if m.action == "accept" || m.action == "hold" {
		if err := f.edit(v, ev, run.printed); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func (f *Filter) count(verdict string) {
	f.metrics.Counter("runs_total", "Runs of the program, by verdict.", "verdict", verdict).Add(1)
}

// Close removes what is left of replaced bodies.
func (f *Filter) Close() error { return f.bodies.Close() }

// Plugin describes the exec filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "exec", Version: "1.0.0", Summary: "run a program for each message",
		Config:   Config{Mode: judge, MaxTime: 30 * time.Second, MaxOutput: 50 << 20},
		Interest: interest(v1.FilterInterest_EDIT), MaxConcurrent: maxConcurrent,
		// What the program does is its own and the operator's to say.
		Needs: &v1.Needs{Network: true, Programs: true, DataDir: true, ReadPaths: []string{"/"}, WritePaths: []string{"/"}},
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			c := *in.Config.(*Config)
			table, err := statuses(c.Exit)
			if err != nil {
				return nil, err
			}
			if info, err := os.Stat(c.Command[0]); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
				in.Log.Warn().Str("program", c.Command[0]).Msg("the program is not there, or may not be run: until it is, on_failure decides")
			}
			b, err := filter.NewBodies(in.DataDir)
			if err != nil {
				return nil, err
			}
			return &Filter{Config: c, statuses: table, bodies: b, hostname: in.Hostname, log: in.Log, metrics: in.Metrics}, nil
		},
	}
}
