package clamav

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const letter = "From: Tom <tom@hanks.example>\nSubject: Hello\n\nHello Meg\n"

// clamd answers INSTREAM as the real one does: what is above the limit is refused
// while it comes, and the connection closed.
type clamd struct {
	address string
	limit   int
	answer  func(message []byte) string
	done    func()
}

// Answers that are none.
const (
	breaksOff = "-breaks off"
	deaf      = "-breaks off at the first chunk"
	silent    = "-says nothing"
)

func serve(t *testing.T, network string, limit int, answer func([]byte) string) *clamd {
	t.Helper()
	place := "127.0.0.1:0"
	if network == "unix" {
		place = filepath.Join(t.TempDir(), "clamd.sock")
	}
	return serveAt(t, network, place, limit, answer)
}

func serveAt(t *testing.T, network, place string, limit int, answer func([]byte) string) *clamd {
	t.Helper()
	l, err := net.Listen(network, place)
	if err != nil {
		t.Fatal(err)
	}
	s := &clamd{address: "unix:" + place, limit: limit, answer: answer}
	if network == "tcp" {
		s.address = "inet:" + l.Addr().String()
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				s.talk(c)
			})
		}
	})
	s.done = sync.OnceFunc(func() { _ = l.Close(); all.Wait() })
	t.Cleanup(s.done)
	return s
}

func (s *clamd) talk(c net.Conn) {
	r := bufio.NewReader(c)
	if command, err := r.ReadString(0); err != nil || command != "zINSTREAM\x00" {
		_, _ = io.WriteString(c, "UNKNOWN COMMAND\x00")
		return
	}
	var message []byte
	for {
		var n uint32
		if err := binary.Read(r, binary.BigEndian, &n); err != nil {
			return
		}
		if n == 0 {
			break
		}
		if s.answer(nil) == deaf {
			return
		}
		if s.limit > 0 && len(message)+int(n) > s.limit {
			_, _ = io.WriteString(c, "INSTREAM size limit exceeded. ERROR\x00")
			return
		}
		piece := make([]byte, n)
		if _, err := io.ReadFull(r, piece); err != nil {
			return
		}
		message = append(message, piece...)
	}
	switch said := s.answer(message); said {
	case breaksOff:
	case silent:
		_, _ = r.ReadByte() // until the other side goes
	default:
		_, _ = io.WriteString(c, said)
	}
}

func always(said string) func([]byte) string { return func([]byte) string { return said } }

type asker func(*v1.FilterCall) (*v1.FilterReply, error)

func asking(t *testing.T, s *clamd, attributes ...string) asker {
	t.Helper()
	return sdktest.Filter(t, Plugin(), fmt.Sprintf("address = %q\n%s\n", s.address, strings.Join(attributes, "\n")))
}

// said is an answer in words.
func said(r *v1.FilterReply) string {
	v := r.GetVerdict()
	parts := []string{v.GetAction().String()}
	if p := v.GetReply(); p != nil {
		parts = append(parts, fmt.Sprintf("%d %s %s", p.GetCode(), p.GetEnhanced(), p.GetText()))
	}
	parts = append(parts, r.GetTags()["clamav"].GetText())
	if virus := r.GetTags()["virus"].GetText(); virus != "" {
		parts = append(parts, virus)
	}
	return strings.Join(parts, "|")
}

func TestVerdicts(t *testing.T) {
	found := always("stream: Win.Test.EICAR_HDB-1 FOUND\x00")
	for _, c := range []struct {
		answer     func([]byte) string
		attributes string
		want       string
	}{
		{always("stream: OK\x00"), "", "ACCEPT|clean"},
		{found, "", "REJECT|550 5.7.1 The message has a virus: Win.Test.EICAR_HDB-1|found|Win.Test.EICAR_HDB-1"},
		{found, `text = "{virus}, no thanks"`, "REJECT|550 5.7.1 Win.Test.EICAR_HDB-1, no thanks|found|Win.Test.EICAR_HDB-1"},
		{found, `found = "hold"`, "HOLD|found|Win.Test.EICAR_HDB-1"},
		{found, `found = "discard"`, "DISCARD|found|Win.Test.EICAR_HDB-1"},
		{found, `found = "tag"`, "ACCEPT|found|Win.Test.EICAR_HDB-1"},
		{always("stream: Own.Name(44d88612fea8a8f36de82e1278abb02f:68) FOUND\x00"), `found = "tag"`, "ACCEPT|found|Own.Name"},
		{always("stream: A\r\nB FOUND\x00"), "", "REJECT|550 5.7.1 The message has a virus: A??B|found|A??B"},
	} {
		for _, network := range []string{"unix", "tcp"} {
			r, err := asking(t, serve(t, network, 0, c.answer), c.attributes)(sdktest.Message(t, letter))
			if got := said(r); err != nil || got != c.want {
				t.Errorf("%s: %s %v, want %s", c.attributes, got, err, c.want)
			}
		}
	}
}

// What clamd gets is the message's octets, a large one's too.
func TestMessageArrivesWhole(t *testing.T) {
	for _, text := range []string{letter, letter + strings.Repeat("A line of a longer story.\n", 20_000)} {
		want := []byte(strings.ReplaceAll(text, "\n", "\r\n"))
		s := serve(t, "unix", 0, func(message []byte) string {
			if bytes.Equal(message, want) {
				return "stream: OK\x00"
			}
			return "stream: Other FOUND\x00"
		})
		if r, err := asking(t, s)(sdktest.Message(t, text)); err != nil || said(r) != "ACCEPT|clean" {
			t.Errorf("%d octets: %s %v", len(want), said(r), err)
		}
	}
}

// The refusal of what is too long is heard, though it comes while the message is
// still sent.
func TestTooLarge(t *testing.T) {
	large := letter + strings.Repeat("A line of a longer story.\n", 200_000)
	for _, c := range []struct{ attributes, want string }{
		{`too_large = "accept"`, "ACCEPT|too_large"},
		{`too_large = "hold"`, "HOLD|too_large"},
		{`too_large = "reject"`, "REJECT|552 5.3.4 The message is too large to be scanned for viruses|too_large"},
		{"", "raise clamd's StreamMaxLength"},
	} {
		for where, s := range map[string]*clamd{
			"clamd's limit by a unix socket": serve(t, "unix", 100_000, always("stream: OK\x00")),
			"clamd's limit by TCP":           serve(t, "tcp", 100_000, always("stream: OK\x00")),
			"max_size":                       serve(t, "unix", 0, always("stream: OK\x00")),
		} {
			attributes := c.attributes
			if where == "max_size" {
				attributes += "\nmax_size = \"1MB\""
			}
			r, err := asking(t, s, attributes)(sdktest.Message(t, large))
			if c.attributes == "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: %v, want %s", where, err, c.want)
				}
			} else if err != nil || said(r) != c.want {
				t.Errorf("%s: %s %v, want %s", where, said(r), err, c.want)
			}
		}
	}
}

func TestTrouble(t *testing.T) {
	for answer, want := range map[string]string{
		"stream: Can't allocate memory ERROR\x00": "clamd could not scan the message: stream: Can't allocate memory ERROR",
		"UNKNOWN COMMAND\x00":                     "neither OK, FOUND nor ERROR: is it clamd that listens there?",
		"220 mx.hanks.example ESMTP\r\n\x00":      "neither OK, FOUND nor ERROR",
		"stream:  FOUND\x00":                      "neither OK, FOUND nor ERROR",
		"stream: OK":                              "broke off before it answered: unexpected EOF",
		strings.Repeat("x", 10_000):               "more than 4096 octets",
		breaksOff:                                 "broke off before it answered",
		deaf:                                      "broke off",
	} {
		_, err := asking(t, serve(t, "unix", 0, always(answer)))(sdktest.Message(t, letter+strings.Repeat("More of it.\n", 100_000)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", answer, err, want)
		}
	}
	if _, err := asking(t, serve(t, "tcp", 0, always(silent)), `scan_timeout = "50ms"`)(sdktest.Message(t, letter)); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("silence: %v", err)
	}
}

// A clamd that is down is asked again when it is back.
func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clamd.sock")
	ask := sdktest.Filter(t, Plugin(), fmt.Sprintf("address = %q", "unix:"+path))
	for range 2 {
		if _, err := ask(sdktest.Message(t, letter)); err == nil || !strings.Contains(err.Error(), "clamd does not answer at unix:"+path) {
			t.Errorf("down: %v", err)
		}
		s := serveAt(t, "unix", path, 0, always("stream: OK\x00"))
		if r, err := ask(sdktest.Message(t, letter)); err != nil || said(r) != "ACCEPT|clean" {
			t.Errorf("up: %s %v", said(r), err)
		}
		s.done()
	}
}

func TestMistakes(t *testing.T) {
	const there = "address = \"inet:127.0.0.1:3310\"\n"
	for config, want := range map[string]string{
		`address = "/run/clamd.ctl"`:     `address: "/run/clamd.ctl" is no address: write unix:/path or inet:port@host`,
		there + `text = "a\nb"`:          "text: it is one line",
		there + `text = ""`:              "text: it is one line",
		there + `connect_timeout = "0s"`: "connect_timeout: it must be above zero",
		there + `scan_timeout = "0s"`:    "scan_timeout: it must be above zero",
	} {
		diags := sdktest.Diagnostics(t, Plugin(), config)
		if len(diags) != 1 || !strings.HasPrefix(diags[0], want) {
			t.Errorf("%s: %q, want %s", config, diags, want)
		}
	}
}

// FuzzAnswer: whatever clamd says is a clean message, a name that a reply and a tag
// can have, or an error.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"stream: OK\x00", "stream: Win.Test.EICAR_HDB-1 FOUND\x00", "stream: A(b:1) FOUND\x00", "INSTREAM size limit exceeded. ERROR\x00",
		"stream: Can't allocate memory ERROR\x00", "UNKNOWN COMMAND\x00", "stream: OK", "stream: \r\n FOUND\x00", "\x00", "stream: (:) FOUND\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		answer, err := readAnswer(bytes.NewReader(b))
		if err != nil {
			return
		}
		virus, err := parse(answer)
		if err != nil {
			if virus != "" {
				t.Errorf("%q: %q and %v", answer, virus, err)
			}
			return
		}
		if virus == "" && string(bytes.TrimSpace(answer)) != "stream: OK" {
			t.Errorf("%q passes for clean", answer)
		}
		if len(virus) > longestName || strings.ContainsFunc(virus, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q became %q", answer, virus)
		}
	})
}
