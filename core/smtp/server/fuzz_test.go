package server

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// naive is the reference for bodyScanner: it takes the whole stream at once, line by
// line, and spells the rules out. It returns the message, whether it has any fault,
// and how much of the stream it took; took is -1 when the end is not there.
func naive(stream string, dots, tolerate bool, maxLine int) (msg string, fault bool, took int) {
	rest, afterCRLF, afterLF := stream, dots, false
	var b strings.Builder
	for rest != "" {
		if dots && afterCRLF && strings.HasPrefix(rest, ".\r\n") {
			return b.String(), fault, len(stream) - len(rest) + 3
		}
		if dots && (afterCRLF || afterLF) {
			rest = strings.TrimPrefix(rest, ".")
		}
		line, after, ended := strings.Cut(rest, "\n")
		rest = after
		if !ended {
			if strings.ContainsAny(line, "\r\x00") || maxLine > 0 && len(line) > maxLine {
				fault = true
			}
			b.WriteString(line)
			break
		}
		text, crlf := strings.CutSuffix(line, "\r")
		if strings.ContainsAny(text, "\r\x00") || maxLine > 0 && len(text) > maxLine {
			fault = true
		}
		afterCRLF, afterLF = crlf, !crlf && tolerate
		b.WriteString(text)
		switch {
		case crlf || tolerate:
			b.WriteString("\r\n")
		default:
			fault = true
			b.WriteString("\n")
		}
	}
	return b.String(), fault, -1
}

func FuzzBodyScanner(f *testing.F) {
	for _, s := range []string{
		".\r\n", "a\r\n.\r\n", "a\r\n..\r\n.\r\nQUIT\r\n", "\r\r\n.\r\n", "a\n.\n\r\n.\r\n", "a\r\n.\rx\r\n.\r\n",
		"a\r.\r\r\n.\r\n", "..\n.\r\n.\r\n", "\x00\r\n.\r\n", "longer than eight\r\n.\r\n", "a\r\n.", "a\r\n.\r", "\r", ".", "\n\n",
	} {
		for split := range uint8(4) {
			f.Add([]byte(s), split, split%2 == 0, split < 2)
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, split uint8, tolerate, dots bool) {
		const maxLine = 8
		want, wantFault, took := naive(string(stream), dots, tolerate, maxLine)
		s := bodyScanner{dots: dots, afterCRLF: dots, tolerateLF: tolerate, maxLine: maxLine}
		var got []byte
		var ended bool
		// As data does it: what scan leaves comes again with what follows, in blocks of
		// varying size.
		var pending []byte
		used, step := 0, int(split)%7+1
		for rest := bytes.Clone(stream); len(rest) > 0 && !ended; {
			k := min(step, len(rest))
			step = step%5 + 1
			pending = append(pending, rest[:k]...)
			rest = rest[k:]
			n, out, end := s.scan(pending)
			if n > len(pending) || !dots && n != len(pending) || !end && len(pending)-n > 2 {
				t.Fatalf("scan took %d of %d", n, len(pending))
			}
			got = append(got, out...)
			pending = bytes.Clone(pending[n:])
			used += n
			ended = end
		}
		if ended != (took >= 0) || ended && used != took {
			t.Fatalf("%q: ended %v after %d, reference says %d", stream, ended, used, took)
		}
		if !ended {
			if dots {
				return // cut off: nobody gets it
			}
			s.finish()
		}
		if (s.fault != faultNone) != wantFault {
			t.Fatalf("%q: fault %d, reference says %v", stream, s.fault, wantFault)
		}
		if !wantFault && string(got) != want {
			t.Fatalf("%q: message %q, reference says %q", stream, got, want)
		}
	})
}

// script is a net.Conn whose client says what it has to say without listening, in
// pieces of a given size.
type script struct {
	in    []byte
	piece int
	out   bytes.Buffer
}

func (c *script) Read(b []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.in[:min(len(c.in), c.piece)])
	c.in = c.in[n:]
	return n, nil
}

func (c *script) Write(b []byte) (int, error)      { return c.out.Write(b) }
func (c *script) Close() error                     { return nil }
func (c *script) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }
func (c *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711} }
func (c *script) SetDeadline(time.Time) error      { return nil }
func (c *script) SetReadDeadline(time.Time) error  { return nil }
func (c *script) SetWriteDeadline(time.Time) error { return nil }

// runScript serves one connection to its end and returns what the backend was
// asked and what the client was told.
func runScript(cfg Config, in []byte, piece int) ([]string, string) {
	r := &recorder{}
	s := New(cfg, r)
	nc := &script{in: in, piece: piece}
	c := newConn(s, nc, "test")
	s.running.Add(1)
	c.serve()
	return r.events, nc.out.String()
}

// checkOrder holds the events against what Session promises its implementer.
func checkOrder(t *testing.T, events []string) {
	t.Helper()
	const (
		none = iota // no transaction
		mail
		body
		closed
	)
	state := none
	for i, e := range events {
		verb, _, _ := strings.Cut(e, " ")
		ok := false
		switch verb {
		case "CONNECT":
			ok = i == 0
		case "EHLO", "HELO", "LHLO", "AUTH":
			ok = state == none
		case "MAIL":
			ok = state == none
			state = mail
		case "RCPT":
			ok = state == mail
		case "BODY":
			ok = state == mail
			state = body
		case "DONE":
			ok = state == body
			state = none
		case "RESET":
			ok = state == mail || state == body
			state = none
		case "CLOSE":
			ok = state == none && i == len(events)-1
			state = closed
		}
		if !ok {
			t.Fatalf("%s out of order in %q", verb, events)
		}
		if verb != "DONE" && strings.ContainsAny(e, "\r\n\x00") {
			t.Fatalf("control in %q", e)
		}
	}
	if state != closed {
		t.Fatalf("not closed: %q", events)
	}
}

func fuzzConfig(lmtp bool) Config {
	cfg := testConfig()
	cfg.LMTP = lmtp
	cfg.Auth, cfg.AllowInsecureAuth = []string{"PLAIN", "LOGIN"}, true
	cfg.MaxErrors, cfg.MaxSize, cfg.MaxBodyLine = 5, 200, 100
	return cfg
}

// FuzzSession: any octets at all. The backend's view stays in order, replies stay lines.
func FuzzSession(f *testing.F) {
	const hello = "EHLO x\r\n"
	for _, s := range []string{
		hello + envelope + "DATA\r\nhi\r\n.\r\nQUIT\r\n",
		hello + envelope + "BDAT 4\r\nhi\r\nBDAT 4 LAST\r\nhi\r\nRSET\r\n",
		hello + envelope + "BDAT 99999999999999999999\r\n",
		hello + "AUTH PLAIN AHRvbQBzbGVlcGxlc3M=\r\n" + envelope,
		hello + "AUTH LOGIN\r\ndG9t\r\nc2xlZXBsZXNz\r\n" + envelope + envelope,
		"LHLO x\r\n" + envelope + "DATA\r\nhi\n.\r\n\r\n.\r\n",
		hello + "MAIL FROM:<\"a b\"@c.d> SIZE=5 BODY=BINARYMIME RET=FULL ENVID=x+2By SMTPUTF8\r\nRCPT TO:<@a:b@c> NOTIFY=NEVER ORCPT=rfc822;a@b\r\nBDAT 3 LAST\r\n\n\r\x00",
		hello + "HELP\r\nVRFY x\r\nNOOP\nEXPN\r\nSTARTTLS\r\nXCLIENT A=B\r\n\r\n\r\n\r\n",
	} {
		f.Add([]byte(s), uint16(1000), strings.HasPrefix(s, "LHLO"))
		f.Add([]byte(s), uint16(3), false)
	}
	f.Fuzz(func(t *testing.T, in []byte, piece uint16, lmtp bool) {
		whole, said := runScript(fuzzConfig(lmtp), bytes.Clone(in), len(in)+1)
		checkOrder(t, whole)
		for l := range strings.SplitSeq(strings.TrimSuffix(said, "\r\n"), "\r\n") {
			if len(l) < 4 || l[0] < '2' || l[0] > '5' || l[3] != ' ' && l[3] != '-' || strings.ContainsAny(l, "\r\n\x00") {
				t.Fatalf("reply line %q", l)
			}
		}
		// However the octets arrive, they mean the same.
		pieces, saidPieces := runScript(fuzzConfig(lmtp), bytes.Clone(in), int(piece)%600+1)
		if !slices.Equal(whole, pieces) || said != saidPieces {
			t.Fatalf("at once   %q\n%q\nin pieces %q\n%q", whole, said, pieces, saidPieces)
		}
	})
}

// FuzzSmuggling: whatever a message holds, none of it is ever an envelope command,
// and the command behind it is.
func FuzzSmuggling(f *testing.F) {
	const forged = "MAIL FROM:<ceo@bank.example>\r\nRCPT TO:<meg@ryan.example>\r\nDATA\r\nforged\r\n"
	for _, end := range []string{"\n.\n", "\r.\r", "\r\n.\r", "\n.\r\n", "\r\n.\n", "\r\n\x00.\r\n", "\r\r\n.\r\r\n"} {
		for kind := range uint8(3) {
			f.Add([]byte("x"+end+forged), uint16(7), kind)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, piece uint16, kind uint8) {
		in := []byte("EHLO x\r\n" + envelope)
		switch kind % 3 {
		case 0:
			if bytes.Contains(append([]byte("\r\n"), body...), []byte("\r\n.\r\n")) {
				return // that is an end
			}
			if bytes.HasSuffix(body, []byte("\r\n.")) || string(body) == "." {
				return // so is this with the CRLF that follows
			}
			in = append(append(append(in, "DATA\r\n"...), body...), "\r\n.\r\n"...)
		case 1:
			in = append(fmt.Appendf(in, "BDAT %d LAST\r\n", len(body)), body...)
		case 2:
			half := len(body) / 2
			in = append(fmt.Appendf(in, "BDAT %d\r\n", half), body[:half]...)
			in = append(fmt.Appendf(in, "BDAT %d LAST\r\n", len(body)-half), body[half:]...)
		}
		in = append(in, "MAIL FROM:<next@hanks.example>\r\n"...)
		events, said := runScript(fuzzConfig(false), in, int(piece)%600+1)
		checkOrder(t, events)
		var mails []string
		for _, e := range events {
			if strings.HasPrefix(e, "MAIL") {
				mails = append(mails, e)
			}
		}
		if !slices.Equal(mails, []string{"MAIL <tom@hanks.example>", "MAIL <next@hanks.example>"}) {
			t.Fatalf("%q\n%q\n%q", in, events, said)
		}
	})
}

// FuzzCommand: one line. A path is spelled as sent, and holds what it says.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"MAIL FROM:<tom@hanks.example> SIZE=99999999999999999999 BODY=8bitmime AUTH=<> SMTPUTF8",
		"mail from: <>", "RCPT TO:<postmaster> NOTIFY=SUCCESS,FAILURE ORCPT=utf-8;a\\x{2B}b", "RCPT TO:<\"a\\\"b>\"@c> X",
		"RCPT TO:<@a,@b:c@d>", "EHLO [192.0.2.1]", "AUTH PLAIN =", "BDAT 0 LAST", "BDAT -1", "XCLIENT ADDR=IPV6:::1 PORT=1 NAME=a+40b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if len(line) > 2000 || strings.Contains(line, "\n") {
			return
		}
		for _, keyword := range []string{"FROM:", "TO:"} {
			_, arg, _ := strings.Cut(line, " ")
			p, params, err := parsePath(arg, keyword)
			if err != nil {
				continue
			}
			if !strings.Contains(arg, "<"+p.Raw+">") || !strings.HasSuffix(arg, params) {
				t.Fatalf("%q: raw %q, parameters %q", arg, p.Raw, params)
			}
		}
		for _, before := range []string{"", "EHLO x\r\n", "EHLO x\r\nMAIL FROM:<a@b> SMTPUTF8\r\n"} {
			events, _ := runScript(fuzzConfig(false), []byte(before+line+"\r\n"), 4096)
			checkOrder(t, events)
		}
	})
}
