package pop3_test

import (
	"io"
	"strings"
	"testing"
)

// BenchmarkRetrieve reads one mail of 50 MB, and 1,000 of 4 KB with pipelined
// commands, in one session.
func BenchmarkRetrieve(b *testing.B) {
	line := strings.Repeat("x", 74) + "\r\n"
	for _, d := range []struct {
		name         string
		lines, count int
	}{{"50MB", 50 << 20 / 76, 1}, {"1000x4KB", 50, 1000}} {
		b.Run(d.name, func(b *testing.B) {
			text := "Subject: x\r\n\r\n" + strings.Repeat(line, d.lines)
			s := start(b, true, nil)
			s.deposit(text)
			c := s.in()
			commands := strings.Repeat("RETR 1\r\n", d.count)
			b.SetBytes(int64(len(text) * d.count))
			for b.Loop() {
				go io.WriteString(c, commands)
				for got := 0; got < d.count; {
					l, err := c.r.ReadSlice('\n')
					if err != nil {
						b.Fatal(err)
					}
					if string(l) == ".\r\n" {
						got++
					}
				}
			}
		})
	}
}
