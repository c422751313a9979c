package protocol_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/miltertest"
	"github.com/stagecoach-mta/stagecoach/plugins/milter/protocol"
)

const patience = 20 * time.Second

// open connects to a milter that does what script says.
func open(t *testing.T, script miltertest.Script, chunk int64) (*protocol.Conn, *miltertest.Server, error) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "milter.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := miltertest.Serve(l, script)
	t.Cleanup(s.Close)
	nc, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	c, err := protocol.Open(nc, protocol.Offer(protocol.AllActions, chunk), patience, time.Time{})
	return c, s, err
}

func talk(t *testing.T, c *protocol.Conn, body string) (protocol.Answer, []protocol.Change) {
	t.Helper()
	facts := protocol.Macros{"i": "q1", "j": "mx.ryan.example", "{mail_addr}": "tom@hanks.example", "{tls_version}": "TLSv1.3", "{x}": "1"}
	steps := []func() (protocol.Answer, error){
		func() (protocol.Answer, error) {
			return c.Connect("mx.hanks.example", protocol.Inet, 25, "192.0.2.1", facts)
		},
		func() (protocol.Answer, error) { return c.Helo("mx.hanks.example", facts) },
		func() (protocol.Answer, error) { return c.Mail("tom@hanks.example", []string{"SIZE=5"}, facts) },
		func() (protocol.Answer, error) { return c.Rcpt("meg@ryan.example", nil, facts) },
		func() (protocol.Answer, error) { return c.Unknown("XYZZY 1") },
		func() (protocol.Answer, error) { return c.Data(facts) },
		func() (protocol.Answer, error) { return c.Header("Subject", []byte(" one\r\n two")) },
		func() (protocol.Answer, error) { return c.EOH(facts) },
		func() (protocol.Answer, error) { return c.Body(strings.NewReader(body)) },
	}
	for i, step := range steps {
		if a, err := step(); err != nil || a.Code != protocol.Continue {
			t.Fatalf("step %d: %q %v", i, a.Code, err)
		}
	}
	a, changes, err := c.EndOfMessage(facts, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return a, changes
}

func TestWhatAMilterIsTold(t *testing.T) {
	c, s, err := open(t, miltertest.Script{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c, "Hello")
	want := `O
D C j=mx.ryan.example
C mx.hanks.example 4 25 192.0.2.1
D H {tls_version}=TLSv1.3
H mx.hanks.example
D M i=q1 {mail_addr}=tom@hanks.example
M <tom@hanks.example> SIZE=5
D R i=q1
R <meg@ryan.example>
U XYZZY 1
D T i=q1
T
L Subject one
 two
D N i=q1
N
B 5
D E i=q1
E`
	if got := strings.Join(s.Log(), "\n"); got != want {
		t.Errorf("told was\n%s\nwant\n%s", got, want)
	}
}

// A milter names its macros; one it does not name is not sent, and a stage that it
// does not speak of has the usual ones.
func TestMacrosAsked(t *testing.T) {
	list := func(stage uint32, names string) string {
		return string(binary.BigEndian.AppendUint32(nil, stage)) + names + "\x00"
	}
	c, s, err := open(t, miltertest.Script{
		Actions: uint32(protocol.ActSetSymList), Macros: list(0, "{x} {unknown}, j") + list(2, ""),
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c, "Hello")
	log := s.Log()
	if log[1] != "D C {x}=1 j=mx.ryan.example" || log[3] != "D H {tls_version}=TLSv1.3" || !strings.HasPrefix(log[5], "M ") {
		t.Errorf("told was\n%s", strings.Join(log, "\n"))
	}
}

// What a milter does not want to hear is not said; what it does not answer is not
// waited for.
func TestSteps(t *testing.T) {
	unwanted := protocol.NoConnect | protocol.NoHelo | protocol.NoMail | protocol.NoRcpt | protocol.NoBody | protocol.NoHeaders |
		protocol.NoEOH | protocol.NoUnknown | protocol.NoData
	c, s, err := open(t, miltertest.Script{Steps: uint32(unwanted)}, 0)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c, "Hello")
	for _, line := range s.Log() {
		if !strings.Contains("ODE", line[:1]) {
			t.Errorf("told was %q", line)
		}
	}
	silent := protocol.NoReplyConnect | protocol.NoReplyHelo | protocol.NoReplyMail | protocol.NoReplyRcpt | protocol.NoReplyData |
		protocol.NoReplyUnknown | protocol.NoReplyHeader | protocol.NoReplyEOH | protocol.NoReplyBody
	c, s, err = open(t, miltertest.Script{Steps: uint32(silent | protocol.LeadingSpace), Answer: func(command byte, _ string) []miltertest.Packet {
		if command == 'E' {
			return miltertest.Continue()
		}
		return nil
	}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c, "Hello")
	if log := s.Log(); !slices.Contains(log, "L Subject  one\n two") || !slices.Contains(log, "B 5") {
		t.Errorf("told was\n%s", strings.Join(log, "\n"))
	}
}

func TestOldVersions(t *testing.T) {
	c, s, err := open(t, miltertest.Script{Version: 2}, 0)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c, "Hello")
	if log := s.Log(); slices.Contains(log, "T") || slices.Contains(log, "U XYZZY 1") || c.CanServeAnother() {
		t.Errorf("version 2 was told\n%s", strings.Join(log, "\n"))
	}
}

// The body goes in parts of what was agreed, and ends when the milter has seen
// enough.
func TestBody(t *testing.T) {
	body := strings.Repeat("x", 3<<20)
	for name, c := range map[string]struct {
		steps protocol.Steps
		chunk int64
		want  []string
	}{
		"64 KiB":           {0, 1 << 20, slices.Repeat([]string{"B 65535"}, 48)},
		"256 KiB":          {protocol.MaxData256K, 1 << 20, slices.Repeat([]string{"B 262143"}, 12)},
		"1 MiB":            {protocol.MaxData1M, 1 << 20, slices.Repeat([]string{"B 1048575"}, 3)},
		"the milter skips": {protocol.CanSkip, 0, []string{"B 65535", "B 65535"}},
	} {
		bodies := 0
		conn, s, err := open(t, miltertest.Script{Steps: uint32(c.steps), Answer: func(command byte, _ string) []miltertest.Packet {
			if command == 'B' && c.steps == protocol.CanSkip {
				if bodies++; bodies == 2 {
					return []miltertest.Packet{{Code: 's'}}
				}
			}
			return miltertest.Continue()
		}}, c.chunk)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		talk(t, conn, body)
		var got []string
		for _, l := range s.Log() {
			if l[0] == 'B' {
				got = append(got, l)
			}
		}
		if n := len(c.want); len(got) < n || !slices.Equal(got[:n], c.want) || len(got) > n+1 {
			t.Errorf("%s: %d parts: %v", name, len(got), got)
		}
	}
}

func TestChanges(t *testing.T) {
	script := miltertest.Script{Actions: uint32(protocol.AllActions), Answer: func(command byte, _ string) []miltertest.Packet {
		if command != 'E' {
			return miltertest.Continue()
		}
		return []miltertest.Packet{
			{Code: 'p'}, miltertest.Say('h', "X-A", "1"), miltertest.Indexed('i', 1, "X-B", "2\n 3"), miltertest.Indexed('m', 2, "Subject", ""),
			{Code: 'p'}, miltertest.Say('+', "<nora@ryan.example>"), miltertest.Say('2', "<kate@ryan.example>", "NOTIFY=NEVER"), miltertest.Say('2', "<joe@ryan.example>"),
			miltertest.Say('-', "<meg@ryan.example>"), miltertest.Say('e', "<>", "RET=HDRS"), {Code: 'b', Data: "a\x00b"}, miltertest.Say('q', "looks odd"),
			miltertest.Say('y', "550-5.7.1 100%% no\r\n550 5.7.1 really"),
		}
	}}
	c, _, err := open(t, script, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, changes := talk(t, c, "Hello")
	if a.Code != protocol.ReplyCode || a.Text != "550-5.7.1 100% no\r\n550 5.7.1 really" {
		t.Errorf("%q %q", a.Code, a.Text)
	}
	want := []protocol.Change{
		{Code: 'h', Name: "X-A", Value: "1"}, {Code: 'i', Name: "X-B", Value: "2\n 3", Index: 1}, {Code: 'm', Name: "Subject", Index: 2},
		{Code: '+', Address: "<nora@ryan.example>"}, {Code: '2', Address: "<kate@ryan.example>", Args: "NOTIFY=NEVER"}, {Code: '2', Address: "<joe@ryan.example>"},
		{Code: '-', Address: "<meg@ryan.example>"}, {Code: 'e', Address: "<>", Args: "RET=HDRS"}, {Code: 'b', Body: []byte("a\x00b")}, {Code: 'q', Reason: "looks odd"},
	}
	if len(changes) != len(want) {
		t.Fatalf("%d changes: %+v", len(changes), changes)
	}
	for i, w := range want {
		g := changes[i]
		if !bytes.Equal(g.Body, w.Body) {
			t.Errorf("body %q", g.Body)
		}
		g.Body, w.Body = nil, nil
		if g.Code != w.Code || g.Name != w.Name || g.Value != w.Value || g.Index != w.Index || g.Address != w.Address || g.Args != w.Args || g.Reason != w.Reason {
			t.Errorf("%+v, want %+v", g, w)
		}
	}
}

// What a milter must not say ends in an error, and never in a verdict.
func TestBrokenMilters(t *testing.T) {
	packets := func(p ...miltertest.Packet) []miltertest.Packet { return p }
	for name, c := range map[string]struct {
		script miltertest.Script
		answer []miltertest.Packet // to the end of the message
		want   string
	}{
		"version 7":             {script: miltertest.Script{Version: 7}, want: "version 7"},
		"an action of its own":  {script: miltertest.Script{Actions: 1 << 20}, want: "not allowed to"},
		"a step of its own":     {script: miltertest.Script{Steps: uint32(protocol.MaxData1M)}, want: "not offered"},
		"half a list":           {script: miltertest.Script{Macros: "\x00\x00"}, want: "without an end"},
		"a list for no stage":   {script: miltertest.Script{Macros: "\x00\x00\x00\x09j\x00"}, want: "stage 9"},
		"an unknown answer":     {answer: packets(miltertest.Packet{Code: 'z'}), want: "unknown"},
		"a skip at the end":     {answer: packets(miltertest.Packet{Code: 's'}), want: "skip"},
		"what it may not":       {answer: packets(miltertest.Say('h', "X-A", "1"), miltertest.Packet{Code: 'c'}), want: "did not ask"},
		"a header of one word":  {script: miltertest.Script{Actions: 1}, answer: packets(miltertest.Say('h', "X-A")), want: "with 1 strings"},
		"a header without NUL":  {script: miltertest.Script{Actions: 1}, answer: packets(miltertest.Packet{Code: 'h', Data: "X-A\x001"}), want: "without a NUL"},
		"an index of two":       {script: miltertest.Script{Actions: 1}, answer: packets(miltertest.Packet{Code: 'i', Data: "\x00\x00"}), want: "without an index"},
		"a body without an end": {script: miltertest.Script{Actions: 2}, answer: slices.Repeat(packets(miltertest.Packet{Code: 'b', Data: strings.Repeat("x", 64<<10)}), 20), want: "more than 1048576 octets"},
		"it hangs up":           {answer: miltertest.Hangup(), want: "EOF"},
	} {
		script := c.script
		script.Answer = func(command byte, _ string) []miltertest.Packet {
			if command == 'E' && c.answer != nil {
				return c.answer
			}
			return miltertest.Continue()
		}
		conn, _, err := open(t, script, 0)
		if err == nil {
			_, _, err = conn.EndOfMessage(nil, 1<<20)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	// A change before the end of the message, and a skip of what is no body.
	for _, p := range packets(miltertest.Say('+', "<meg@ryan.example>"), miltertest.Packet{Code: 's'}) {
		conn, _, err := open(t, miltertest.Script{Actions: uint32(protocol.AllActions), Steps: uint32(protocol.CanSkip), Answer: func(byte, string) []miltertest.Packet {
			return packets(p)
		}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Helo("mx.hanks.example", nil); !errors.Is(err, protocol.ErrProtocol) {
			t.Errorf("%q to HELO: %v", p.Code, err)
		}
	}
}

// Silence ends after the patience, progress renews it, the deadline ends both.
func TestWaiting(t *testing.T) {
	conn, _, err := open(t, miltertest.Script{Answer: func(byte, string) []miltertest.Packet { return nil }}, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn.Patience = 20 * time.Millisecond
	if _, err := conn.Helo("mx.hanks.example", nil); !errors.Is(err, protocol.ErrPatience) {
		t.Errorf("silence: %v", err)
	}

	// Progress for ever; the deadline is what ends it.
	near, far := net.Pipe()
	defer near.Close()
	var wait sync.WaitGroup
	wait.Go(func() {
		defer far.Close()
		in := make([]byte, 4096)
		if _, err := far.Read(in); err != nil {
			return
		}
		if _, err := far.Write([]byte("\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x00")); err != nil {
			return
		}
		if _, err := far.Read(in); err != nil {
			return
		}
		for {
			if _, err := far.Write([]byte("\x00\x00\x00\x01p")); err != nil {
				return
			}
		}
	})
	begin := time.Now()
	conn, err = protocol.Open(near, protocol.Offer(0, 0), patience, begin.Add(patience))
	if err != nil {
		t.Fatal(err)
	}
	conn.Deadline = time.Now().Add(50 * time.Millisecond)
	if _, _, err := conn.EndOfMessage(nil, 1); !errors.Is(err, protocol.ErrPatience) {
		t.Errorf("progress for ever: %v", err)
	}
	_ = near.Close()
	wait.Wait()
}

// Interrupt ends a wait from outside, and those after it.
func TestInterrupt(t *testing.T) {
	asked := make(chan struct{}, 1)
	conn, _, err := open(t, miltertest.Script{Answer: func(byte, string) []miltertest.Packet {
		asked <- struct{}{}
		return nil
	}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-asked
		conn.Interrupt()
	}()
	if _, err := conn.Helo("mx.hanks.example", nil); !errors.Is(err, protocol.ErrPatience) {
		t.Errorf("%v", err)
	}
	if _, err := conn.Helo("mx.hanks.example", nil); !errors.Is(err, protocol.ErrPatience) {
		t.Errorf("afterwards: %v", err)
	}
}
