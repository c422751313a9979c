// Package demo plays the mail world's story with two complete servers, each a
// process of its own, and a DNS server, all on loopback: Tom writes, Meg's server
// is down, the mail waits, arrives, is read. It is also a test of the whole.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/dns/dnstest"
)

// stepTimeout bounds each step; what is waited for takes a second or two.
const stepTimeout = 60 * time.Second

const password = "sleepless"

// Options of a run.
type Options struct {
	// Executable is this program.
	Executable string
	// AddUser writes a user into a people file.
	AddUser func(path, address, password string) error
	Out     io.Writer
	// Dir keeps the servers' data and logs; empty: a folder that is removed.
	Dir string
}

// Result of a run.
type Result struct {
	Held, Steps int
	// Dir is where the logs are, if it was kept.
	Dir string
}

// story is the state of a run.
type story struct {
	Options
	result  Result
	dns     *dnstest.Server
	hanks   *site
	ryan    *site
	mu      sync.Mutex
	devices []*device // a step that takes too long has them hung up
	// skip the rest of a chapter: its steps build on the one that failed.
	skip bool
}

// Run plays the story. Its error means that the demo itself could not run; a
// step that did not hold is in the result.
func Run(ctx context.Context, o Options) (res Result, err error) {
	keep := o.Dir != ""
	if !keep {
		if o.Dir, err = os.MkdirTemp("", "stagecoach-demo-"); err != nil {
			return res, err
		}
	}
	s := &story{Options: o}
	defer func() {
		s.close()
		res = s.result
		switch {
		case keep || err != nil || res.Held < res.Steps:
			res.Dir = o.Dir
		default:
			err = os.RemoveAll(o.Dir)
		}
	}()
	if err := s.setUp(); err != nil {
		return res, err
	}
	return res, s.tell(ctx, s.chapters())
}

// tell plays the chapters and says how much of them held.
func (s *story) tell(ctx context.Context, chapters []chapter) error {
	for _, c := range chapters {
		fmt.Fprintf(s.Out, "\n%s\n", c.title)
		s.skip = false
		for _, st := range c.steps {
			if err := ctx.Err(); err != nil {
				return err
			}
			s.play(ctx, st)
		}
	}
	fmt.Fprintf(s.Out, "\n%d of %d steps held.\n", s.result.Held, s.result.Steps)
	return nil
}

type chapter struct {
	title string
	steps []step
}

// step does one thing and says what happened.
type step struct {
	what string
	do   func(ctx context.Context) (happened string, err error)
}

func (s *story) play(ctx context.Context, st step) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	s.result.Steps++
	if s.skip {
		fmt.Fprintf(s.Out, "  skipped %s\n", st.what)
		return
	}
	defer context.AfterFunc(ctx, s.hangUp)()
	happened, err := st.do(ctx)
	if err != nil {
		s.skip = true
		fmt.Fprintf(s.Out, "  FAILED  %s: %v\n", st.what, err)
		return
	}
	s.result.Held++
	fmt.Fprintf(s.Out, "  ok      %s: %s\n", st.what, happened)
}

// hangUp ends what the devices wait for.
func (s *story) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.devices {
		d.Close()
	}
}

// device opens one that hangUp knows.
func (s *story) device(at *site, name, user string) (*device, error) {
	d, err := at.device(name, user)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.devices = append(s.devices, d)
	}
	return d, err
}

// setUp makes the DNS zone, the people and the two configurations.
func (s *story) setUp() (err error) {
	if s.dns, err = dnstest.Start(); err != nil {
		return err
	}
	ports, err := freePorts(1, 0, "127.0.0.2", "127.0.0.3")
	if err != nil {
		return err
	}
	if err := s.dns.SetAll(map[string][]string{
		"hanks.example":    {"MX 10 mx.hanks.example."},
		"ryan.example":     {"MX 10 mx.ryan.example."},
		"mx.hanks.example": {"A 127.0.0.2"},
		"mx.ryan.example":  {"A 127.0.0.3"},
	}); err != nil {
		return err
	}
	s.hanks, err = newSite(s.Options, "hanks.example", "127.0.0.2", ports[0], s.dns.Addr(), "tom@hanks.example")
	if err != nil {
		return err
	}
	s.ryan, err = newSite(s.Options, "ryan.example", "127.0.0.3", ports[0], s.dns.Addr(), "meg@ryan.example", "annie@ryan.example")
	return err
}

func (s *story) close() {
	for _, x := range []*site{s.hanks, s.ryan} {
		if x != nil {
			x.stop()
		}
	}
	if s.dns != nil {
		s.dns.Close()
	}
}

// until asks again and again until it is told yes, or ctx ends.
func until(ctx context.Context, what string, ask func() (bool, error)) error {
	var last error
	for {
		ok, err := ask()
		if ok {
			return nil
		}
		last = err
		t := time.NewTimer(50 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return errors.Join(fmt.Errorf("waited in vain for %s", what), last)
		}
	}
}

func logPath(dir, domain string) string { return filepath.Join(dir, domain+".log") }
