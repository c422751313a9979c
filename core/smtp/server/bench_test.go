//go:build linux

package server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// The benchmarks run each server in a process of its own (this test binary, started
// again), so that its CPU time and memory are its own, and drive ours and go-smtp's
// by turns with the same client. Run them with
//
//	go test -run xxx -bench . ./core/smtp/server
//
// ours-µs/msg and go-smtp-µs/msg are CPU time of the server per message, user and
// system; ratio is ours by go-smtp's.

const childEnv = "SMTP_BENCH_CHILD"

func TestMain(m *testing.M) {
	if kind := os.Getenv(childEnv); kind != "" {
		if err := runChild(kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// runChild serves until stdin ends. It prints its address, then for each line of
// stdin its CPU time in µs and its resident memory in KiB.
func runChild(kind string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	switch kind {
	case "ours":
		cfg := DefaultConfig()
		cfg.MaxConnections, cfg.MaxConnectionsPerIP, cfg.MaxTransactionsPerConn = 0, 0, 0
		go New(cfg, noop{}).Serve(l)
	case "go-smtp":
		s := smtp.NewServer(peerNoop{})
		s.ErrorLog = discardLog{}
		s.ReadTimeout, s.WriteTimeout = 5*time.Minute, 5*time.Minute
		go s.Serve(l)
	default:
		return fmt.Errorf("no server %q", kind)
	}
	fmt.Println(l.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "collect" {
			debug.FreeOSMemory()
		}
		var ru syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
			return err
		}
		statm, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			return err
		}
		var size, resident int
		fmt.Sscan(string(statm), &size, &resident)
		fmt.Println((ru.Utime.Nano()+ru.Stime.Nano())/1000, resident*os.Getpagesize()/1024)
	}
	return nil
}

type noop struct{}

func (noop) NewSession(context.Context, *Conn) (Session, error)  { return noop{}, nil }
func (noop) Hello(context.Context, Hello) error                  { return nil }
func (noop) Mail(context.Context, Path, *MailOptions) error      { return nil }
func (noop) Rcpt(context.Context, Path, *smtp.RcptOptions) error { return nil }
func (noop) Body(context.Context) (io.Writer, error)             { return io.Discard, nil }
func (noop) Done(context.Context) []Reply                        { return noopReplies }
func (noop) Reset()                                              {}
func (noop) Close()                                              {}

var noopReplies = []Reply{OK("OK")}

type peerNoop struct{}

func (peerNoop) NewSession(*smtp.Conn) (smtp.Session, error) { return peerNoop{}, nil }
func (peerNoop) Mail(string, *smtp.MailOptions) error        { return nil }
func (peerNoop) Rcpt(string, *smtp.RcptOptions) error        { return nil }
func (peerNoop) Data(r io.Reader) error                      { _, err := io.Copy(io.Discard, r); return err }
func (peerNoop) Reset()                                      {}
func (peerNoop) Logout() error                               { return nil }

type discardLog struct{}

func (discardLog) Printf(string, ...any) {}
func (discardLog) Println(...any)        {}

// child is a server in a process of its own.
type child struct {
	t    testing.TB
	addr string
	in   io.Writer
	out  *bufio.Reader
}

func startChild(t testing.TB, kind string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+kind)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	c := &child{t: t, in: in, out: bufio.NewReader(out)}
	addr, err := c.out.ReadString('\n')
	must(t, err)
	c.addr = strings.TrimSpace(addr)
	return c
}

// usage returns CPU time in µs and resident memory in KiB.
func (c *child) usage(how string) (cpu, rss int) {
	c.t.Helper()
	fmt.Fprintln(c.in, how)
	line, err := c.out.ReadString('\n')
	must(c.t, err)
	if _, err := fmt.Sscan(line, &cpu, &rss); err != nil {
		c.t.Fatal(err)
	}
	return cpu, rss
}

func message(size int) []byte {
	line := []byte("The quick brown fox jumps over the lazy dog, and the lazy dog lets it happen.\r\n")
	return append(bytes.Repeat(line, size/len(line)), ".\r\n"...)
}

// onePerConn sends n messages, each over a connection of its own, in lockstep.
func onePerConn(addr string, n int, body []byte) error {
	steps := [][]byte{nil, []byte("EHLO hanks.example\r\n"), []byte("MAIL FROM:<tom@hanks.example>\r\n"),
		[]byte("RCPT TO:<meg@ryan.example>\r\n"), []byte("DATA\r\n"), body, []byte("QUIT\r\n")}
	r := bufio.NewReader(nil)
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		r.Reset(c)
		for _, s := range steps {
			if err := talk(c, r, s, 1); err != nil {
				return err
			}
		}
		c.Close()
	}
	return nil
}

// pipelined sends n messages over one connection: a message and the next envelope
// in one flight.
func pipelined(addr string, n, rcpts int, body []byte) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	envelope := []byte("MAIL FROM:<tom@hanks.example>\r\n" + strings.Repeat("RCPT TO:<meg@ryan.example>\r\n", rcpts) + "DATA\r\n")
	if err := talk(c, r, nil, 1); err != nil {
		return err
	}
	if err := talk(c, r, []byte("EHLO hanks.example\r\n"), 1); err != nil {
		return err
	}
	if err := talk(c, r, envelope, 2+rcpts); err != nil {
		return err
	}
	flight := append(bytes.Clone(body), envelope...)
	for range n - 1 {
		if err := talk(c, r, flight, 3+rcpts); err != nil {
			return err
		}
	}
	return talk(c, r, append(bytes.Clone(body), "QUIT\r\n"...), 2)
}

// compare sends b.N messages to each server, by turns in rounds, over so many
// clients at once. goal is the most of go-smtp's CPU that ours may take.
func compare(b *testing.B, goal float64, clients int, run func(addr string, n int) error) {
	const rounds = 4
	kinds := []string{"ours", "go-smtp"}
	servers := []*child{startChild(b, kinds[0]), startChild(b, kinds[1])}
	var cpu, sent [2]int
	for round := range rounds {
		for i, s := range servers {
			n := max(1, b.N/rounds/clients)
			before, _ := s.usage("")
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					if err := run(s.addr, n); err != nil {
						b.Errorf("%s: %v", kinds[i], err)
					}
				})
			}
			wg.Wait()
			after, _ := s.usage("")
			if round > 0 || b.N < 100 { // the first is to warm up
				cpu[i] += after - before
				sent[i] += n * clients
			}
		}
	}
	ours, theirs := float64(cpu[0])/float64(sent[0]), float64(cpu[1])/float64(sent[1])
	b.ReportMetric(ours, "ours-µs/msg")
	b.ReportMetric(theirs, "go-smtp-µs/msg")
	b.ReportMetric(ours/theirs, "ratio")
	b.ReportMetric(goal, "limit")
	b.ReportMetric(0, "ns/op") // of both servers together: says nothing
}

func BenchmarkOneMailPerConnection(b *testing.B) {
	for _, clients := range []int{1, 20} {
		for _, size := range []int{1 << 10, 16 << 10} {
			b.Run(fmt.Sprintf("%dK/%dclients", size>>10, clients), func(b *testing.B) {
				body := message(size)
				compare(b, 1.2, clients, func(addr string, n int) error { return onePerConn(addr, n, body) })
			})
		}
	}
}

func BenchmarkPipelined(b *testing.B) {
	for _, c := range []struct{ size, rcpts, clients int }{{1 << 10, 1, 20}, {1 << 10, 20, 20}, {16 << 10, 1, 20}, {4 << 20, 1, 2}} {
		b.Run(fmt.Sprintf("%dK/%drcpts", c.size>>10, c.rcpts), func(b *testing.B) {
			body := message(c.size)
			compare(b, 1.0/3, c.clients, func(addr string, n int) error { return pipelined(addr, n, c.rcpts, body) })
		})
	}
}

// idleConnections returns what a connection costs in octets of resident memory
// while it waits after one message.
func idleConnections(t testing.TB, kind string, count int) float64 {
	s := startChild(t, kind)
	body := message(1 << 10)
	must(t, onePerConn(s.addr, 100, body))
	_, before := s.usage("collect")
	for range count {
		c, err := net.Dial("tcp", s.addr)
		must(t, err)
		defer c.Close()
		r := bufio.NewReader(c)
		for _, step := range []string{"", "EHLO hanks.example\r\n", "MAIL FROM:<tom@hanks.example>\r\n", "RCPT TO:<meg@ryan.example>\r\n", "DATA\r\n", string(body)} {
			must(t, talk(c, r, []byte(step), 1))
		}
	}
	_, after := s.usage("")
	return float64(after-before) * 1024 / float64(count)
}

func BenchmarkIdleConnection(b *testing.B) {
	for _, kind := range []string{"ours", "go-smtp"} {
		b.Run(kind, func(b *testing.B) {
			var sum float64
			for range b.N {
				sum += idleConnections(b, kind, 2000)
			}
			b.ReportMetric(sum/float64(b.N), "B-RSS/conn")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkScan is the body scanner alone.
func BenchmarkScan(b *testing.B) {
	body := message(32 << 10)
	b.SetBytes(int64(len(body)))
	buf := make([]byte, len(body))
	for b.Loop() {
		copy(buf, body)
		s := bodyScanner{dots: true, afterCRLF: true, maxLine: 64 << 10}
		if _, _, end := s.scan(buf); !end || s.fault != faultNone {
			b.Fatal("no end")
		}
	}
}
