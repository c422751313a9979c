package client_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
)

// sink takes everything with as little work as it can.
func sink(nc net.Conn) {
	defer nc.Close()
	br := bufio.NewReaderSize(nc, 64<<10)
	io.WriteString(nc, "220 sink\r\n")
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return
		}
		switch {
		case bytes.HasPrefix(line, []byte("EHLO")):
			io.WriteString(nc, "250-sink\r\n250-8BITMIME\r\n250 PIPELINING\r\n")
		case bytes.HasPrefix(line, []byte("DATA")):
			io.WriteString(nc, "250 ok\r\n250 ok\r\n354 go\r\n")
			for !bytes.Equal(line, []byte(".\r\n")) {
				if line, err = br.ReadSlice('\n'); err != nil {
					return
				}
			}
			io.WriteString(nc, "250 ok\r\n")
		}
	}
}

func benchmarkSend(b *testing.B, size int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if nc, err := l.Accept(); err == nil {
			sink(nc)
		}
	}()
	c, err := client.Dial(context.Background(), "tcp", l.Addr().String(), config)
	if err != nil {
		b.Fatal(err)
	}
	body := strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72)
	tx := mail(body, "meg@ryan.example")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		res, err := c.Send(context.Background(), tx)
		if err != nil || !res.Recipients[0].Delivered() {
			b.Fatal(summary(res), err)
		}
	}
	c.Close()
	<-done
}

func BenchmarkSend1K(b *testing.B)  { benchmarkSend(b, 1<<10) }
func BenchmarkSend16K(b *testing.B) { benchmarkSend(b, 16<<10) }
func BenchmarkSend4M(b *testing.B)  { benchmarkSend(b, 4<<20) }
