package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Each test of this file names a defect seen in another server that this one must
// not have.

// 1: after a time-out within DATA the rest of the body ran as commands and forged
// an envelope.
func TestTimeoutInDataNeverRunsTheBodyAsCommands(t *testing.T) {
	cfg := testConfig()
	cfg.DataTimeout = 50 * time.Millisecond
	for _, begin := range []string{"DATA\r\n", "BDAT 1000\r\n"} {
		s := serve(t, cfg)
		w := s.greeted(t)
		w.send(envelope + begin + "first half\r\n")
		for range 2 {
			w.expect("", "250")
		}
		if begin[0] == 'D' {
			w.expect("", "354")
		}
		w.expect("", "421 4.4.2 mx.ryan.example")
		// The write may fail, as the server has gone; what matters is that it is not heard.
		io.WriteString(w, ".\r\nMAIL FROM:<ceo@bank.example>\r\nRCPT TO:<meg@ryan.example>\r\nDATA\r\nforged\r\n.\r\n")
		w.expectEnd()
		w.Close()
		s.waitFor(t, "CLOSE")
		s.wantEvents(t, "CONNECT 127.0.0.1", "EHLO hanks.example", "MAIL <tom@hanks.example>", "RCPT <meg@ryan.example>", "BODY", "RESET", "CLOSE")
	}
}

// 2: the whole of DATA had to fit into one read time-out.
func TestSlowButSteadyDataIsNotCutOff(t *testing.T) {
	cfg := testConfig()
	cfg.DataTimeout = time.Second
	s := serve(t, cfg)
	w := s.greeted(t)
	w.expect(envelope+"DATA\r\n", "250", "250", "354")
	start := time.Now()
	for time.Since(start) < 2*cfg.DataTimeout {
		w.send("a line\r\n")
		time.Sleep(cfg.DataTimeout / 10) // the pace of the client is what is tested
	}
	w.expect(".\r\n", "250 2.0.0")
}

// A client that sends an octet now and then is bounded by the message's time.
func TestMessageTimeoutBoundsADrip(t *testing.T) {
	cfg := testConfig()
	cfg.DataTimeout, cfg.MessageTimeout = 200*time.Millisecond, 300*time.Millisecond
	s := serve(t, cfg)
	w := s.greeted(t)
	w.expect(envelope+"DATA\r\n", "250", "250", "354")
	var stop atomic.Bool
	go func() {
		for !stop.Load() {
			if _, err := io.WriteString(w, "x\r\n"); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	w.expect("", "421 4.4.2")
	stop.Store(true)
}

// 3: a body that ends CR CRLF.CRLF was never seen to end.
func TestBodyEndingInCRCRLFDotCRLFEnds(t *testing.T) {
	s := serve(t, testConfig())
	w := s.greeted(t)
	w.expect(envelope+"DATA\r\n", "250", "250", "354")
	w.expect("x\r\r\n.\r\nNOOP\r\n", "554 5.6.0 The message has a bare CR", "250 2.0.0")
}

// 4: of CRLF.CR and another octet the CR was lost. Here it is a bare CR, refused;
// the scanner itself keeps it.
func TestDotCRInTheMiddleIsKept(t *testing.T) {
	b := []byte("a\r\n.\rx\r\n.\r\n")
	s := bodyScanner{dots: true, afterCRLF: true}
	n, out, end := s.scan(b)
	if n != len(b) || !end || string(out) != "a\r\n\rx\r\n" || s.fault != faultBareCR {
		t.Fatalf("%d, %q, %v, fault %d", n, out, end, s.fault)
	}
}

// 5: bare LF, bare CR and NUL passed unflagged. (body-faults.txt has the dialogue.)
func TestSmugglingSequencesAreRefused(t *testing.T) {
	const forged = "MAIL FROM:<ceo@bank.example>\r\nRCPT TO:<meg@ryan.example>\r\nDATA\r\nforged"
	for _, end := range []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\n.\r", "\r.\n", "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\r\r\n", "\r\r\n.\r\r\n", "\x00"} {
		s := serve(t, testConfig())
		w := s.greeted(t)
		w.expect(envelope+"DATA\r\n", "250", "250", "354")
		w.expect("x"+end+forged+"\r\n.\r\nQUIT\r\n", "554 5.6.0", "221")
		w.expectEnd()
		s.waitFor(t, "CLOSE")
		if len(s.all("MAIL")) != 1 || len(s.all("DONE")) != 0 || len(s.all("RESET")) != 1 {
			t.Errorf("%q: %q", end, s.take())
		}
		w.Close()
	}
}

// 6: a second MAIL without RSET was accepted and kept the first one's recipients.
func TestSecondMailIsRefused(t *testing.T) {
	s := serve(t, testConfig())
	w := s.greeted(t)
	w.expect(envelope+envelope+"DATA\r\n", "250", "250", "503 5.5.1", "250", "354")
	w.expect("x\r\n.\r\n", "250")
	w.expect("MAIL FROM:<tom@hanks.example>\r\nDATA\r\n", "250", "554 5.5.1")
}

// 7: controls in addresses passed, quotes were lost, <postmaster> was refused.
func TestAddressesKeepTheirFormAndHoldNoControls(t *testing.T) {
	s := serve(t, testConfig())
	w := s.greeted(t)
	w.expect("MAIL FROM:<\"a@b\"@c.d>\r\nRCPT TO:<postmaster>\r\nRCPT TO:<\"x> y\"@c.d>\r\n", "250", "250", "250")
	for _, bad := range []string{"\x00", "\r", "\a", "\x7f", "\t"} {
		w.expect("RCPT TO:<a"+bad+"b@c.d>\r\n", "500 5.5.2")
		w.expect("RCPT TO:<\"a"+bad+"b\"@c.d>\r\n", "500 5.5.2")
	}
	s.wantEvents(t, "CONNECT 127.0.0.1", "EHLO hanks.example", `MAIL <"a@b"@c.d>`, "RCPT <postmaster>", `RCPT <"x> y"@c.d>`)
}

// 8: one line over 2,000 octets within DATA ended the connection.
func TestLongBodyLineKeepsTheSession(t *testing.T) {
	s := serve(t, testConfig())
	w := s.greeted(t)
	w.expect(envelope+"DATA\r\n", "250", "250", "354")
	w.expect(strings.Repeat("x", 40_000)+"\r\n.\r\n", "250 2.0.0")
	w.expect(envelope+"DATA\r\n", "250", "250", "354")
	w.expect(strings.Repeat("x", 1<<20)+"\r\n.\r\nNOOP\r\n", "554 5.6.0", "250")
	w.expect("NOOP "+strings.Repeat("x", 1<<20)+"\r\nNOOP\r\n", "500 5.5.2", "250")
}

// 9: EHLO greeted with the client's name, and wrong codes. (sequence.txt has more.)
func TestEhloGreetsWithOwnNameAndCodesAreRight(t *testing.T) {
	s := serve(t, testConfig())
	w := s.dial(t)
	w.expect("", "220 mx.ryan.example ")
	w.expect("EHLO hanks.example\r\n", "250-mx.ryan.example ")
	w.expect("DATA\r\n", "503 5.5.1")
	w.expect("RCPT TO:<meg@ryan.example>\r\n", "503 5.5.1")
	w.expect("MAIL FROM:<tom@hanks.example> NEVERHEARD=1\r\n", "555 5.5.4")
}

// 10: the Session was Reset while its Data still ran, and a refused BDAT left its
// chunk to be read as commands. Here a Session has one goroutine: what it is asked
// has an order, also when the client goes in the middle of a chunk.
func TestBdatCutOffOrRefusedIsOrderly(t *testing.T) {
	s := serve(t, testConfig())
	w := s.greeted(t)
	w.expect(envelope+"BDAT 5\r\nhelloBDAT 100\r\nhalf of it", "250", "250", "250")
	w.Close()
	s.waitFor(t, "CLOSE")
	s.wantEvents(t, "CONNECT 127.0.0.1", "EHLO hanks.example", "MAIL <tom@hanks.example>", "RCPT <meg@ryan.example>", "BODY", "RESET", "CLOSE")

	for _, c := range []struct{ command, reply string }{
		{"BDAT 6 FIRST\r\nRSET\r\n", "501 5.5.4"},
		{"BDAT 6 LAST LAST\r\nRSET\r\n", "501 5.5.4"},
		{"BDAT 6 LAST\r\nRSET\r\n", "503 5.5.1"},
	} {
		w := s.greeted(t)
		w.expect(c.command+"NOOP\r\n", c.reply, "250 2.0.0 OK")
		w.Close()
	}
	for _, size := range []string{"", "x", "-1", "+1", "0x10", "9223372036854775808"} {
		w := s.greeted(t)
		w.expect(envelope+"BDAT "+size+" LAST\r\nMAIL FROM:<ceo@bank.example>\r\n", "250", "250", "501 5.5.4")
		w.expectEnd()
		w.Close()
	}
	if got := s.all("MAIL <ceo"); len(got) > 0 {
		t.Error(got)
	}
}

// countingListener counts the writes of its connections.
type countingListener struct {
	net.Listener
	writes atomic.Int64
}

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{c, &l.writes}, nil
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// Writing: every reply line was a write of its own: 8 for EHLO, 12 for one flight
// of MAIL, 10 RCPT and DATA.
func TestOneWritePerBatchOfInput(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	cl := &countingListener{Listener: l}
	r := &recorder{}
	s := New(testConfig(), r)
	go s.Serve(cl)
	defer s.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer c.Close()
	w := newWire(t, c)
	flight := "MAIL FROM:<tom@hanks.example>\r\n" + strings.Repeat("RCPT TO:<meg@ryan.example>\r\n", 10) + "DATA\r\n"
	replies := append(append([]string{"250"}, strings.Fields(strings.Repeat("250 ", 10))...), "354")
	for _, step := range []struct {
		send    string
		replies []string
	}{
		{"", []string{"220"}},
		{"EHLO hanks.example\r\n", []string{"250"}},
		{flight, replies},
		{"a\r\n.\r\n" + flight, append([]string{"250"}, replies...)},
		{"a\r\n.\r\nQUIT\r\n", []string{"250", "221"}},
	} {
		w.expect(step.send, step.replies...)
		if n := cl.writes.Swap(0); n != 1 {
			t.Errorf("%d writes in answer to %q", n, step.send)
		}
	}
}

// Shutdown: an idle client's new MAIL was accepted, and nobody got a 421.
func TestShutdownDrains(t *testing.T) {
	s := serve(t, testConfig(), func(s *testServer) { s.hold = make(chan struct{}) })
	idle, fresh, busy, inData := s.greeted(t), s.dial(t), s.greeted(t), s.greeted(t)
	fresh.expect("", "220")
	busy.expect(envelope, "250", "250")
	inData.expect(envelope+"DATA\r\n", "250", "250", "354")
	inData.send("half\r\n")

	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	for _, w := range []*wire{idle, fresh} {
		w.expect("", "421 4.3.2 mx.ryan.example")
		w.expectEnd()
	}
	if _, err := net.Dial("tcp", s.addr); err == nil {
		t.Error("a new connection was accepted")
	}
	busy.expect("RCPT TO:<kathleen@ryan.example>\r\nDATA\r\n", "250", "354")
	select {
	case err := <-ended:
		t.Fatalf("Shutdown did not wait: %v", err)
	default:
	}
	close(s.hold)
	// The message is taken; the MAIL behind it is not.
	busy.expect("x\r\n.\r\n"+envelope, "250 2.0.0", "421 4.3.2")
	busy.expectEnd()
	busy.Close()
	inData.expect("other half\r\n.\r\n", "250 2.0.0", "421 4.3.2")
	inData.expectEnd()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if n := len(s.all("MAIL")); n != 2 {
		t.Errorf("%d transactions", n)
	}
	if n, m := len(s.all("CONNECT")), len(s.all("CLOSE")); n != m {
		t.Errorf("%d sessions, %d closed", n, m)
	}
}

func TestShutdownGivesUpWithItsContext(t *testing.T) {
	s := serve(t, testConfig())
	w := s.greeted(t)
	w.expect(envelope+"DATA\r\n", "250", "250", "354")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Fatal(err)
	}
	s.waitFor(t, "CLOSE")
}

// STARTTLS: plain text behind the command must not be answered under TLS.
func TestStartTLSDropsInjectedCommands(t *testing.T) {
	cfg := testConfig()
	serverTLS, clientTLS := testTLS(t)
	cfg.TLS = serverTLS
	s := serve(t, cfg)
	w := s.greeted(t)
	w.expect(envelope, "250", "250")
	w.expect("STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@evil.example>\r\n", "220 2.0.0")
	tc := tls.Client(w.Conn, clientTLS)
	must(t, tc.Handshake())
	tw := newWire(t, tc)
	// The first words under TLS get the first answer: the old greeting is forgotten too.
	tw.expect("RCPT TO:<meg@ryan.example>\r\n", "503 5.5.1")
	tw.expect("MAIL FROM:<tom@hanks.example>\r\n", "503 5.5.1 EHLO first")
	tw.expect("EHLO hanks.example\r\n", "250-mx.ryan.example")
	tw.expect("STARTTLS\r\n", "503 5.5.1")
	s.wantEvents(t, "CONNECT 127.0.0.1", "EHLO hanks.example", "MAIL <tom@hanks.example>", "RCPT <meg@ryan.example>", "RESET", "EHLO hanks.example")
}

// AUTH lines go up to 12288 octets whatever MaxLine is, and no further.
func TestAuthLineLimit(t *testing.T) {
	cfg := testConfig()
	cfg.Auth, cfg.AllowInsecureAuth, cfg.MaxLine = []string{"PLAIN"}, true, 512
	s := serve(t, cfg)
	w := s.greeted(t)
	long := strings.Repeat("QUFB", 3000)
	w.expect("AUTH PLAIN "+long+"\r\n", "535 5.7.8")
	w.expect("AUTH PLAIN\r\n", "334")
	w.expect(long+"\r\n", "535 5.7.8")
	w.expect("AUTH PLAIN\r\n", "334")
	w.expect(long+long+"\r\n", "500 5.5.6")
	w.expect("AUTH PLAIN "+long+long+"\r\nNOOP\r\n", "500 5.5.2", "250")
	w.expect("NOOP "+long+"\r\n", "500 5.5.2")
}

// A command may come octet by octet.
func TestCommandsInPieces(t *testing.T) {
	s := serve(t, testConfig())
	w := s.dial(t)
	w.expect("", "220")
	for b := range bytes.SplitSeq([]byte("EHLO hanks.example\r\n"+envelope+"DATA\r\nhi\r\n.\r\nQUIT\r\n"), nil) {
		w.send(string(b))
	}
	w.expect("", "250", "250", "250", "354", "250", "221")
	w.expectEnd()
	if got := s.all("DONE"); len(got) != 1 || got[0] != `DONE "hi\r\n"` {
		t.Error(got)
	}
}
