package imap_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap"
)

// BenchmarkFetchFlags10k: FETCH 1:* (FLAGS) of 10,000 messages.
func BenchmarkFetchFlags10k(b *testing.B) { benchFetch(b, "(FLAGS)") }

// BenchmarkFetchEnvelope10k: FETCH 1:* (ENVELOPE) of 10,000 messages.
func BenchmarkFetchEnvelope10k(b *testing.B) { benchFetch(b, "(ENVELOPE)") }

func benchFetch(b *testing.B, items string) {
	s := start(b, true, nil)
	mails := make([]string, 10000)
	for i := range mails {
		mails[i] = fmt.Sprintf("From: tom@hanks.example\r\nTo: meg@ryan.example\r\nSubject: %d\r\n\r\nx\r\n", i)
	}
	s.deposit(mails...)
	c := s.raw(true)
	c.Conn.SetDeadline(time.Time{})
	c.say("a SELECT INBOX\r\n")
	c.until("a OK")
	buffer := make([]byte, 64<<10)
	for b.Loop() {
		c.say("b FETCH 1:* " + items + "\r\n")
		var end []byte
		for !bytes.Contains(end, []byte("\r\nb OK")) {
			n, err := c.r.Read(buffer)
			if err != nil {
				b.Fatal(err)
			}
			end = append(end[:0], buffer[max(0, n-200):n]...)
		}
	}
}

// BenchmarkIdleMemory: resident memory of one idle session of 500 that wait in
// IDLE, the client's side of the connection in this process included.
func BenchmarkIdleMemory(b *testing.B) {
	for b.Loop() {
		s := start(b, true, func(c *imap.Config) { c.MaxAddressConnections, c.MaxUserConnections = 0, 0 })
		before := resident(b)
		const sessions = 500
		var conns []net.Conn
		buffer := make([]byte, 4096)
		for range sessions {
			c, err := net.Dial("tcp", s.address)
			if err != nil {
				b.Fatal(err)
			}
			conns = append(conns, c)
			fmt.Fprintf(c, "a LOGIN %s sleepless\r\nb SELECT INBOX\r\nc IDLE\r\n", meg)
			for got := ""; !strings.Contains(got, "+ idling"); {
				n, err := c.Read(buffer)
				if err != nil {
					b.Fatal(err)
				}
				got += string(buffer[:n])
			}
		}
		b.ReportMetric(float64(resident(b)-before)/sessions, "B/session")
		for _, c := range conns {
			c.Close()
		}
	}
}

// resident reads the process's resident memory, without garbage.
func resident(b *testing.B) int {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, pages int
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return pages * os.Getpagesize()
}
