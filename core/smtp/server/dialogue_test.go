package server

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDialogues plays testdata/dialogue/*.txt:
//
//	# a comment
//	option NAME VALUE   of Config (see setOption)
//	C: text             the client sends text and CRLF
//	c: text             the client sends text with Go's escapes, and no CRLF
//	S: text             the server says exactly this line
//	S* text             the server's next reply, all its lines, begins with text
//	E: text             the backend is asked this (all since the last E: lines)
//	END                 the server closes the connection
//
// Lines of the client that follow each other leave in one write.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogue/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			play(t, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"))
		})
	}
}

func play(t *testing.T, script []string) {
	cfg := testConfig()
	cfg.MaxConnectionsPerIP = 1
	var s *testServer
	var w *wire
	send := ""
	for i := 0; i < len(script); i++ {
		line := script[i]
		word, text, _ := strings.Cut(line, " ")
		if word == "option" {
			name, value, _ := strings.Cut(text, " ")
			setOption(t, &cfg, name, value)
			continue
		}
		if s == nil && word != "#" && word != "" {
			s = serve(t, cfg)
			w = s.dial(t)
		}
		if send != "" && word != "C:" && word != "c:" {
			w.send(send)
			send = ""
		}
		switch word {
		case "#", "":
		case "C:":
			send += text + "\r\n"
		case "c:":
			raw, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
			if err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
			send += raw
		case "S:":
			if got, err := w.line(); got != text || err != nil {
				t.Fatalf("line %d: server said\n  %q, %v; want\n  %q", i+1, got, err, text)
			}
		case "S*":
			if got := w.reply(); !strings.HasPrefix(got, text) {
				t.Fatalf("line %d: server said\n  %q; want\n  %q", i+1, got, text)
			}
		case "E:":
			want := []string{text}
			for i+1 < len(script) && strings.HasPrefix(script[i+1], "E: ") {
				i++
				want = append(want, script[i][3:])
			}
			wantEvents(t, i+1, s, want)
		case "END":
			if got, err := w.line(); err != io.EOF {
				t.Fatalf("line %d: want the end, got %q, %v", i+1, got, err)
			}
			w.Close() // the server waits a moment for it
		default:
			t.Fatalf("line %d: what is %q?", i+1, line)
		}
	}
	if s == nil || send != "" {
		t.Fatal("the dialogue ends in the middle")
	}
}

// wantEvents waits, as the end of a connection shows a moment later at the backend.
func wantEvents(t *testing.T, line int, s *testServer, want []string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(patience); len(got) < len(want) && time.Now().Before(deadline); {
		if more := s.take(); len(more) > 0 {
			got = append(got, more...)
		} else {
			time.Sleep(time.Millisecond)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("line %d: backend was asked\n  %s\nwant\n  %s", line, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func setOption(t *testing.T, c *Config, name, value string) {
	number := func() int {
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	switch name {
	case "LMTP":
		c.LMTP = true
	case "TLS":
		c.TLS, _ = testTLS(t)
	case "RequireTLS":
		c.RequireTLS = true
	case "Auth":
		c.Auth = strings.Fields(value)
	case "AllowInsecureAuth":
		c.AllowInsecureAuth = true
	case "RequireAuth":
		c.RequireAuth = true
	case "PlainExtensions":
		c.EnableDSN, c.EnableSMTPUTF8, c.EnableBinaryMIME, c.EnableRequireTLS, c.EnableLimits = false, false, false, false, false
		c.EnablePriority, c.EnableDeliverBy = false, false
	case "MinDeliverBy":
		c.MinDeliverBy = time.Duration(number()) * time.Second
	case "MaxHold":
		c.MaxHold = time.Duration(number()) * time.Second
	case "MaxSize":
		c.MaxSize = int64(number())
	case "MaxRecipients":
		c.MaxRecipients = number()
	case "MaxLine":
		c.MaxLine = number()
	case "MaxBodyLine":
		c.MaxBodyLine = number()
	case "MaxErrors":
		c.MaxErrors = number()
	case "MaxRefused":
		c.MaxRefused = number()
	case "MaxTransactionsPerConn":
		c.MaxTransactionsPerConn = number()
	case "TolerateBareLF":
		c.TolerateBareLF = loopback
	case "XClientFrom":
		c.XClientFrom = loopback
	case "ProxyProtocolFrom":
		c.ProxyProtocolFrom = loopback
	default:
		t.Fatalf("no option %s", name)
	}
}
