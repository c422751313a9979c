package spamd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const letter = "From: Tom <tom@hanks.example>\nSubject: Hello\nX-Spam-Status: No\nx-spam-status: No\nX-SPAM-Own: 1\nX-Spam: No\n\nHello Meg\n"

// gone is what a sender's fields become.
const gone = "|-0 X-Spam-Status|-0 X-SPAM-Own"

// question is what spamd was asked.
type question struct {
	command, user, message string
}

// Answers that are none.
const (
	breaksOff = "-breaks off"
	deaf      = "-breaks off before the message"
	silent    = "-says nothing"
)

// serve is a stand-in for spamd: it answers once and closes.
func serve(t *testing.T, network string, answer func(question) string) string {
	t.Helper()
	place := "127.0.0.1:0"
	if network == "unix" {
		place = filepath.Join(t.TempDir(), "spamd.sock")
	}
	at, _ := serveAt(t, network, place, answer)
	return at
}

func serveAt(t *testing.T, network, place string, answer func(question) string) (at string, done func()) {
	t.Helper()
	l, err := net.Listen(network, place)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	over := make(chan struct{})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				talk(c, over, answer)
			})
		}
	})
	done = sync.OnceFunc(func() { _ = l.Close(); close(over); all.Wait() })
	t.Cleanup(done)
	if network == "tcp" {
		return "inet:" + l.Addr().String(), done
	}
	return "unix:" + place, done
}

func talk(c net.Conn, over chan struct{}, answer func(question) string) {
	r, q, length := bufio.NewReader(c), question{}, 0
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line == "\r\n" {
			break
		}
		name, value, field := strings.Cut(strings.TrimSuffix(line, "\r\n"), ": ")
		switch {
		case !field:
			q.command = name
		case name == "Content-length":
			length, _ = strconv.Atoi(value)
		case name == "User":
			q.user = value
		}
	}
	if answer(q) == deaf {
		return
	}
	message := make([]byte, length)
	if _, err := io.ReadFull(r, message); err != nil {
		return
	}
	q.message = string(message)
	switch said := answer(q); said {
	case breaksOff:
	case silent:
		<-over // the end of what the other side says is heard already
	default:
		_, _ = io.WriteString(c, said)
	}
}

func always(said string) func(question) string { return func(question) string { return said } }

func asking(t *testing.T, attributes string, servers ...string) func(*v1.FilterCall) (*v1.FilterReply, error) {
	t.Helper()
	return sdktest.Filter(t, Plugin(), fmt.Sprintf("servers = [\"%s\"]\n%s\n", strings.Join(servers, `", "`), attributes))
}

// said is a verdict and the edits in words.
func said(r *v1.FilterReply) string {
	v := r.GetVerdict()
	parts := []string{v.GetAction().String()}
	if p := v.GetReply(); p != nil {
		parts = append(parts, fmt.Sprintf("%d %s %s", p.GetCode(), p.GetEnhanced(), p.GetText()))
	}
	for _, e := range r.GetEdits() {
		if x := e.GetInsertHeader(); x != nil {
			parts = append(parts, fmt.Sprintf("+%d %s:%s", x.GetPosition(), x.GetField().GetName(), x.GetField().GetValue()))
		}
		if x := e.GetDeleteHeader(); x != nil {
			parts = append(parts, fmt.Sprintf("-%d %s", x.GetIndex(), x.GetName()))
		}
	}
	return strings.Join(parts, "|")
}

// judged is an answer as spamd writes it.
func judged(verdict, body string) string {
	return fmt.Sprintf("SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\nSpam: %s\r\n\r\n%s", len(body), verdict, body)
}

const (
	spam = "True ; 15.5 / 5.0"
	ham  = "False ; -0.1 / 5.0"
)

func TestVerdicts(t *testing.T) {
	const header = "Received: from mx\r\nX-Spam-Flag: YES\r\nX-Spam-Status: Yes, score=15.5 required=5.0 tests=A,B,\r\n\tC autolearn=no\r\nX-Envelope-From: <a>\r\n\tX-Spam-No: field\r\n\r\nX-Spam-Body: 1\r\n"
	const marks = "|+0 X-Spam-Status: Yes, score=15.5 required=5.0 tests=A,B,\r\n\tC autolearn=no|+0 X-Spam-Flag: YES"
	for _, c := range []struct{ answer, attributes, want string }{
		{judged(spam, header), "", "ACCEPT" + gone + marks},
		{judged(spam, header), `mark = "spam"`, "ACCEPT" + gone + marks},
		{judged(ham, header), "", "ACCEPT" + gone + marks},
		{judged(ham, header), `mark = "spam"`, "ACCEPT" + gone},
		{judged(spam, "A,B"), `mark = "none"`, "ACCEPT"},
		{judged(spam, "A,B"), "mark = \"none\"\nspam = \"reject\"", "REJECT|550 5.7.1 The message looks like spam"},
		{judged(spam, "A,B"), "mark = \"none\"\nspam = \"hold\"", "HOLD"},
		{judged(spam, "A,B"), "mark = \"none\"\nspam = \"discard\"", "DISCARD"},
		{judged(ham, ""), "mark = \"none\"\nspam = \"reject\"", "ACCEPT"},
		{judged(spam, "A"), "mark = \"none\"\nspam = \"hold\"\nreject_at = 15.5\ntext = \"No\"", "REJECT|550 5.7.1 No"},
		{judged(spam, "A"), "mark = \"none\"\nreject_at = 15.6", "ACCEPT"},
		{judged("False ; 4.0 / 5.0", "A"), "mark = \"none\"\nreject_at = 3", "REJECT|550 5.7.1 The message looks like spam"},
		{"SPAMD/1.0 0 EX_OK\nSpam: Yes ; 15.5 / 5.0\n\nX-Spam-Level: ***\n\n", "", "ACCEPT" + gone + "|+0 X-Spam-Level: ***"}, // no length: up to the end
		{judged(ham, "X-Spam-A: a\rBcc: x\r\n\r\n"), "", "ACCEPT" + gone + "|+0 X-Spam-A: a\r\n\tBcc: x"},
		{judged(ham, "X-Spam-A B: a\r\nX-Spam-: b\r\nSubject: c\r\n\r\n"), "", "ACCEPT" + gone},
	} {
		for _, network := range []string{"tcp", "unix"} {
			r, err := asking(t, c.attributes, serve(t, network, always(c.answer)))(sdktest.Message(t, letter))
			if got := said(r); err != nil || got != c.want {
				t.Errorf("%s %s: %q %v, want %q", c.answer, c.attributes, got, err, c.want)
			}
		}
	}
}

func TestTags(t *testing.T) {
	for _, c := range []struct {
		answer, attributes string
		symbols            []string
	}{
		{judged(spam, "GTUBE,NO_RECEIVED"), `mark = "none"`, []string{"GTUBE", "NO_RECEIVED"}},
		{judged(spam, "GTUBE,\xff\r\n"), `mark = "none"`, []string{"GTUBE", "?"}},
		{judged(spam, "X-Spam-Status: Yes, score=15.5 required=5.0\r\n\ttests=GTUBE,\r\n\tNO_RECEIVED autolearn=no\r\n\r\n"), "", []string{"GTUBE", "NO_RECEIVED"}},
		{judged(spam, "X-Spam-Status: Yes, tests=none version=4\r\n\r\n"), "", nil},
		{judged(spam, ""), "", nil},
		{judged(spam, strings.Repeat("A,", 1000)), `mark = "none"`, slices.Repeat([]string{"A"}, mostSymbols)},
	} {
		r, err := asking(t, c.attributes, serve(t, "unix", always(c.answer)))(sdktest.Message(t, letter))
		tag := r.GetTags()["spamd"].GetMap().GetEntries()
		if err != nil || tag["score"].GetNumber() != 15.5 || tag["required"].GetNumber() != 5 || !tag["spam"].GetFlag() || tag["skipped"].GetFlag() ||
			!slices.Equal(tag["symbols"].GetList().GetValues(), c.symbols) {
			t.Errorf("%.100q: %v %v", c.answer, tag, err)
		}
	}
}

// What spamd hears: whose preferences, the sender, and the message's octets, a large
// one's too, and one's whose last line has no end.
func TestQuestion(t *testing.T) {
	for _, c := range []struct{ attributes, to, command, user string }{
		{"", "meg@ryan.example", "HEADERS SPAMC/1.5", ""},
		{`mark = "none"`, "meg@ryan.example", "SYMBOLS SPAMC/1.5", ""},
		{`user = "all"`, "meg@ryan.example", "HEADERS SPAMC/1.5", "all"},
		{"user = \"all\"\nper_recipient = true", "Meg+x@Ryan.example", "HEADERS SPAMC/1.5", "meg+x@ryan.example"},
		{"user = \"all\"\nper_recipient = true", "meg@ryan.example annie@ryan.example", "HEADERS SPAMC/1.5", "all"},
		{"user = \"all\"\nper_recipient = true", "../../meg@ryan.example", "HEADERS SPAMC/1.5", "all"},
		{"per_recipient = true", "grüße@ryan.example", "HEADERS SPAMC/1.5", ""},
	} {
		for _, text := range []string{letter, letter + strings.Repeat("A line of a longer story.\n", 15_000) + "The end"} {
			want := question{c.command, c.user, "X-Envelope-From: <tom@hanks.example>\r\n" + strings.ReplaceAll(text, "\n", "\r\n")}
			var got atomic.Pointer[question]
			at := serve(t, "unix", func(q question) string {
				got.Store(&q)
				return judged(ham, "")
			})
			call := sdktest.Message(t, text)
			call.Envelope.Recipients = nil
			for to := range strings.FieldsSeq(c.to) {
				call.Envelope.Recipients = append(call.Envelope.Recipients, &v1.Recipient{Address: to})
			}
			if _, err := asking(t, c.attributes, at)(call); err != nil || *got.Load() != want {
				t.Errorf("%s: %.300q %v, want %.300q", c.attributes, *got.Load(), err, want)
			}
		}
	}
}

func TestTrouble(t *testing.T) {
	long := letter + strings.Repeat("More of it.\n", 20_000)
	for answer, want := range map[string]string{
		"SPAMD/1.0 76 Bad header line: (EOF during headers)\r\n":                     "could not look at the message: 76 Bad header line: (EOF during headers)",
		"SPAMD/1.0 79 Timeout: \x1b\r\n":                                             "could not look at the message: 79 Timeout: ?",
		"220 mx.hanks.example ESMTP\r\n":                                             "is it spamd that listens there?",
		"SPAMD/1.1 OK\r\n":                                                           "is it spamd that listens there?",
		"SPAMD/1.1 0 EX_OK\r\n\r\n":                                                  "says nothing about spam",
		"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1.0 / 5.0\r\n":                            "broke off before it had answered",
		"SPAMD/1.1 0 EX_OK\r\nSpam: Perhaps ; 1.0 / 5.0\r\n\r\n":                     "neither True nor False",
		"SPAMD/1.1 0 EX_OK\r\nSpam: True ; NaN / 5.0\r\n\r\n":                        "without two numbers",
		"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 5.0\r\n\r\n":                              "without two numbers",
		"SPAMD/1.1 0 EX_OK\r\nContent-length: 9\r\nSpam: True ; 6.0 / 5.0\r\n\r\nX:": "broke off before it had answered",
		"SPAMD/1.1 0 EX_OK\r\nContent-length: -1\r\n":                                `length is "-1"`,
		"SPAMD/1.1 0 EX_OK\r\nContent-length: 9999999999\r\n":                        `length is "9999999999"`,
		"SPAMD/1.1 0 EX_OK\r\n" + strings.Repeat("A", longestAnswer):                 "more than 4194304 octets",
		judged(spam, strings.Repeat("X-Spam-A: b\r\n", 200)):                         "more than 100 fields",
		judged(spam, "X-Spam-A: "+strings.Repeat("b", 40_000)):                       "at most 32768 are taken",
		breaksOff: "broke off before it had answered",
		deaf:      "broke off",
		"":        "broke off before it had answered",
	} {
		_, err := asking(t, "", serve(t, "unix", always(answer)))(sdktest.Message(t, long))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %s", answer, err, want)
		}
	}
	if _, err := asking(t, `scan_timeout = "50ms"`, serve(t, "tcp", always(silent)))(sdktest.Message(t, letter)); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("silence: %v", err)
	}
}

// A server that is down costs a look, and is then asked last; all down is no verdict.
func TestFailover(t *testing.T) {
	var asked atomic.Int32
	broken := serve(t, "tcp", func(q question) string {
		if q.message != "" {
			asked.Add(1)
		}
		return breaksOff
	})
	good := serve(t, "tcp", always(judged(ham, "")))
	ask := asking(t, `mark = "none"`, broken, good)
	for range 3 {
		if r, err := ask(sdktest.Message(t, letter)); err != nil || said(r) != "ACCEPT" {
			t.Errorf("%s %v", said(r), err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the broken server was asked %d times", n)
	}
	none := "unix:" + filepath.Join(t.TempDir(), "none.sock")
	if _, err := asking(t, "", broken, none)(sdktest.Message(t, letter)); err == nil || !strings.Contains(err.Error(), "spamd at "+none) || !strings.Contains(err.Error(), "spamd at "+broken) {
		t.Errorf("%v", err)
	}
}

// A spamd that was down is asked again when it is back.
func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spamd.sock")
	ask := asking(t, `mark = "none"`, "unix:"+path)
	for range 2 {
		if _, err := ask(sdktest.Message(t, letter)); err == nil || !strings.Contains(err.Error(), "spamd at unix:"+path) {
			t.Errorf("down: %v", err)
		}
		_, done := serveAt(t, "unix", path, always(judged(ham, "")))
		if r, err := ask(sdktest.Message(t, letter)); err != nil || said(r) != "ACCEPT" {
			t.Errorf("up: %s %v", said(r), err)
		}
		done()
	}
}

func TestTooLarge(t *testing.T) {
	at := serve(t, "unix", func(question) string { t.Error("it was asked"); return breaksOff })
	r, err := asking(t, `max_size = "10B"`, at)(sdktest.Message(t, letter))
	if err != nil || said(r) != "ACCEPT"+gone || !r.GetTags()["spamd"].GetMap().GetEntries()["skipped"].GetFlag() {
		t.Errorf("%s %v", said(r), err)
	}
}

func TestMistakes(t *testing.T) {
	const there = "servers = [\"inet:127.0.0.1:783\"]\n"
	for config, want := range map[string]string{
		`servers = []`:                   "servers: name a server",
		`servers = ["127.0.0.1:783"]`:    "servers: ",
		there + `user = "a\nb"`:          "user: it is one line",
		there + `user = " a"`:            "user: it is one line",
		there + `text = ""`:              "text: it is one line",
		there + `reject_at = -1`:         "reject_at: it must not be below zero",
		there + `connect_timeout = "0s"`: "connect_timeout: it must be above zero",
		there + `scan_timeout = "0s"`:    "scan_timeout: it must be above zero",
	} {
		diags := sdktest.Diagnostics(t, Plugin(), config)
		if len(diags) != 1 || !strings.HasPrefix(diags[0], want) {
			t.Errorf("%s: %q, want %s", config, diags, want)
		}
	}
}

// FuzzAnswer: whatever spamd says is an error, or fields that keep a header one.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		judged(spam, "X-Spam-Flag: YES\r\nX-Spam-Status: Yes, tests=A,\r\n\tB version=4\r\n\r\n"), judged(ham, "A,B"), "SPAMD/1.0 76 Bad\r\n",
		"SPAMD/1.1 0 EX_OK\nSpam: True ; 1 / 2\n\nX-Spam-A: a\rb\n \n\t\n\n", "SPAMD/1.1 0 EX_OK\r\nContent-length: 5\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parse(strings.NewReader(s))
		if err != nil {
			return
		}
		v := filter.Accept().TagMap("spamd", a.tags())
		a.mark(v)
		for _, e := range v.Reply().GetEdits() {
			field := e.GetInsertHeader().GetField()
			if !isMark(field.GetName()) || strings.ContainsAny(field.GetName(), " \t\r\n:") {
				t.Errorf("%q wrote the field %q", s, field.GetName())
			}
			for i, line := range strings.Split(string(field.GetValue()), "\r\n") {
				if strings.ContainsAny(line, "\r\n\x00") || i > 0 && strings.Trim(line, " \t") == "" || i > 0 && line[0] != ' ' && line[0] != '\t' {
					t.Errorf("%q became %q", s, field.GetValue())
				}
			}
		}
		if len(a.marks) > mostMarks || len(a.symbols) > mostSymbols {
			t.Errorf("%d fields, %d symbols", len(a.marks), len(a.symbols))
		}
	})
}
