package pop3

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// FuzzCommands: no line makes a session fail, and every line of the answer that
// is not in a list says OK or ERR.
func FuzzCommands(f *testing.F) {
	for _, s := range []string{"STAT", "LIST 1", "UIDL", "DELE 1\r\nRSET", "TOP 1 99999999999", "AUTH PLAIN =", "capa", "LIST -1", "RETR", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, in := range []bool{false, true} {
			s := &Server{config: DefaultConfig(), host: access.Host{}, gate: admission.New(admission.Limits{})}
			a, b := net.Pipe()
			defer a.Close()
			defer b.Close()
			ss := newSession(s, a, netip.Prefix{})
			ss.use(a, false)
			var out bytes.Buffer
			ss.small = bufio.NewWriter(&out)
			ss.out = ss.small
			if in {
				ss.drop = &maildrop{mailbox: &v1.Mailbox{UidValidity: 1}, messages: []*message{{uid: 1, size: 10}}}
			}
			for _, line := range strings.Split(text, "\r\n") {
				verb := strings.ToUpper(strings.TrimSpace(line))
				if ss.ended || strings.HasPrefix(verb, "QUIT") || strings.HasPrefix(verb, "RETR") || strings.HasPrefix(verb, "TOP") || strings.HasPrefix(verb, "LIST") || strings.HasPrefix(verb, "UIDL") {
					// Those go to the storage, or answer through the connection.
					break
				}
				out.Reset()
				ss.command(line)
				ss.out.Flush()
				if got := out.String(); !strings.HasPrefix(got, "+OK") && !strings.HasPrefix(got, "-ERR") || !strings.HasSuffix(got, "\r\n") {
					t.Errorf("%q is answered with %q", line, got)
				}
			}
		}
	})
}

// FuzzStuff: undoing the stuffing gives the message, with a line end at its end.
func FuzzStuff(f *testing.F) {
	for _, s := range []string{"", ".", "a\r\n.b\r\n", "a\nb", "\r", "x\r\r\n", "a\r\n\r\n."} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var out bytes.Buffer
		w := bufio.NewWriter(&out)
		if err := stuff(w, bytes.NewReader(text), -1); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		got, ok := strings.CutSuffix(out.String(), ".\r\n")
		if !ok {
			t.Fatalf("no final dot in %q", out.String())
		}
		want := strings.ReplaceAll(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n", "\r\n")
		switch {
		case want == "", strings.HasSuffix(want, "\r\n"):
		case strings.HasSuffix(want, "\r"):
			want += "\n"
		default:
			want += "\r\n"
		}
		var back strings.Builder
		for _, l := range strings.SplitAfter(got, "\r\n") {
			if l == ".\r\n" {
				t.Fatalf("a dot alone within %q", got)
			}
			back.WriteString(strings.TrimPrefix(l, "."))
		}
		if back.String() != want {
			t.Errorf("%q comes back as %q, want %q", text, back.String(), want)
		}
	})
}
