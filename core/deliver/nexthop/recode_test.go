package nexthop_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/deliver/nexthop"
)

// takes is a server with those extensions that keeps what it got: MAIL and the message.
func takes(t *testing.T, extensions ...string) (port int, got func() string) {
	var mu sync.Mutex
	var all strings.Builder
	port = scripted(t, "127.0.0.1:0", func(_ int, nc net.Conn, br *bufio.Reader) {
		io.WriteString(nc, "220 x\r\n")
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			switch word, rest, _ := strings.Cut(strings.TrimSpace(line), " "); word {
			case "EHLO":
				io.WriteString(nc, "250-x\r\n250-"+strings.Join(extensions, "\r\n250-")+"\r\n250 HELP\r\n")
			case "MAIL":
				mu.Lock()
				all.WriteString(strings.TrimPrefix(rest, "FROM:<tom@hanks.example>") + "\n")
				mu.Unlock()
				io.WriteString(nc, "250 ok\r\n")
			case "DATA":
				io.WriteString(nc, "354 go\r\n")
				for line = ""; line != ".\r\n"; {
					mu.Lock()
					all.WriteString(line)
					mu.Unlock()
					if line, err = br.ReadString('\n'); err != nil {
						return
					}
				}
				io.WriteString(nc, "250 ok\r\n")
			case "BDAT":
				n := 0
				fmt.Sscan(rest, &n)
				b := make([]byte, n)
				if _, err := io.ReadFull(br, b); err != nil {
					return
				}
				mu.Lock()
				all.Write(b)
				mu.Unlock()
				io.WriteString(nc, "250 ok\r\n")
			default:
				io.WriteString(nc, "250 ok\r\n")
			}
		}
	})
	return port, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.ReplaceAll(all.String(), "\r\n", "\n")
	}
}

// A recipient whose address a server cannot take keeps no other one waiting, also
// not one of a later transaction.
func TestAddressesThatTheNextHopDoesNotTake(t *testing.T) {
	for _, most := range []int{1, 2, 100} {
		port, _ := takes(t, "ENHANCEDSTATUSCODES", "LIMITS MAILMAX=1")
		tr := newWorld(t, nil).transport(nexthop.Options{Smarthost: []string{hostPort(port)}, MaxRecipients: most})
		out := deliver(t, tr, "mégane@ryan.example", "sébastien@ryan.example", "meg@ryan.example", "chloé@ryan.example", "joe@ryan.example")
		want(t, out, "failed 550 5.6.7", "failed 550 5.6.7", "delivered 250 2.0.0", "failed 550 5.6.7", "delivered 250 2.0.0")
	}
}

// A server gets what it can take: encoded where it offers too little, and else as
// it came; what cannot be encoded is returned with the reason.
func TestContentThatTheNextHopDoesNotTake(t *testing.T) {
	const eight = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSchöne Grüße von einer langen Reise durch das Land\r\n"
	const signed = "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nschön\r\n--b--\r\n"
	const binary = "MIME-Version: 1.0\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\xff\n\r"
	for _, c := range []struct {
		name       string
		extensions []string
		body       smtp.BodyType
		text       string
		change     func(*nexthop.Options)
		outcome    string
		got        string
		reason     string
	}{
		{"8-bit to an old server", []string{"SIZE 1000"}, smtp.Body8BitMIME, eight, nil, "delivered 250 2.0.0",
			" SIZE=174\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nSch=C3=B6ne Gr=C3=BC=C3=9Fe von einer langen Reise durch das Land\n", ""},
		{"8-bit that nobody declared", []string{"HELP"}, "", eight, nil, "delivered 250 2.0.0",
			"\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nSch=C3=B6ne Gr=C3=BC=C3=9Fe von einer langen Reise durch das Land\n", ""},
		{"8-bit to a new one", []string{"8BITMIME"}, smtp.Body8BitMIME, eight, nil, "delivered 250 2.0.0", " BODY=8BITMIME\n" + strings.ReplaceAll(eight, "\r\n", "\n"), ""},
		{"where it is not wanted", nil, smtp.Body8BitMIME, eight, func(o *nexthop.Options) { o.NoRecoding = true }, "failed 550 5.6.3", "", "does not offer 8BITMIME"},
		{"signed", nil, smtp.Body8BitMIME, signed, nil, "failed 550 5.6.3", "", "it cannot be encoded for it: it is signed as it is"},
		{"binary", []string{"8BITMIME", "CHUNKING"}, smtp.BodyBinaryMIME, binary, nil, "delivered 250 2.0.0",
			" BODY=8BITMIME\nMIME-Version: 1.0\nContent-Type: image/x\nContent-Transfer-Encoding: base64\n\nAP8KDQ==\n", ""},
		{"binary to an old server", nil, smtp.BodyBinaryMIME, binary, nil, "delivered 250 2.0.0",
			"\nMIME-Version: 1.0\nContent-Type: image/x\nContent-Transfer-Encoding: base64\n\nAP8KDQ==\n", ""},
		{"binary to one that takes it", []string{"BINARYMIME", "CHUNKING"}, smtp.BodyBinaryMIME, binary, nil, "delivered 250 2.0.0",
			" BODY=BINARYMIME\n" + strings.ReplaceAll(binary, "\r\n", "\n"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			port, got := takes(t, append(c.extensions, "ENHANCEDSTATUSCODES")...)
			o := nexthop.Options{Smarthost: []string{hostPort(port)}}
			if c.change != nil {
				c.change(&o)
			}
			m := mail("meg@ryan.example")
			m.Options.Body, m.Size = c.body, int64(len(c.text))
			m.Body = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(c.text)), nil }
			out := newWorld(t, nil).transport(o).Deliver(t.Context(), m)
			if brief(out[0]) != c.outcome || got() != c.got || !strings.Contains(out[0].Text, c.reason) {
				t.Errorf("%s %q, the server got\n%q, want\n%q", brief(out[0]), out[0].Text, got(), c.got)
			}
		})
	}
}
