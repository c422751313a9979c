package server

import (
	"strings"
	"testing"
)

// BenchmarkTransactions is the engine without a socket: one connection that sends
// b.N messages of one recipient, pipelined. B/op and allocs/op are per message.
func BenchmarkTransactions(b *testing.B) {
	for _, c := range []struct {
		name, rcpts string
		count       int
	}{{"1rcpt", "RCPT TO:<meg@ryan.example>\r\n", 1}, {"20rcpts", strings.Repeat("RCPT TO:<meg@ryan.example>\r\n", 20), 20}} {
		b.Run(c.name, func(b *testing.B) {
			one := "MAIL FROM:<tom@hanks.example> SIZE=1000\r\n" + c.rcpts + "DATA\r\n" + string(message(1<<10))
			cfg := testConfig()
			cfg.MaxTransactionsPerConn = 0
			s := New(cfg, noop{})
			nc := &repeating{first: "EHLO hanks.example\r\n", text: one, left: b.N}
			conn := newConn(s, nc, "bench")
			s.running.Add(1)
			b.ReportAllocs()
			b.ResetTimer()
			conn.serve()
		})
	}
}

// repeating is a client that sends one text a number of times and hears nothing.
type repeating struct {
	script
	first, text string
	left        int
}

func (c *repeating) Read(b []byte) (int, error) {
	if c.first != "" {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	if len(c.in) == 0 && c.left > 0 {
		c.in, c.piece = []byte(c.text), len(c.text)
		c.left--
	}
	return c.script.Read(b)
}

func (c *repeating) Write(b []byte) (int, error) { return len(b), nil }
