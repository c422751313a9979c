package rspamd

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const letter = "From: Tom <tom@hanks.example>\nSubject: Hello\nX-Old: one\nX-Old: two\nX-Spam: No\n\nHello Meg\n"

// serve is a stand-in for rspamd's normal worker.
func serve(t *testing.T, network string, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	at := ""
	if network == "unix" {
		path := filepath.Join(t.TempDir(), "rspamd.sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Listener.Close()
		s.Listener, at = l, "unix:"+path
	}
	s.Start()
	t.Cleanup(s.Close)
	if at == "" {
		at = s.URL
	}
	return at
}

func saying(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, answer)
	}
}

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
		if x := e.GetReplaceHeader(); x != nil {
			parts = append(parts, fmt.Sprintf("=%d %s:%s", x.GetIndex(), x.GetName(), x.GetValue()))
		}
		if x := e.GetDeleteHeader(); x != nil {
			parts = append(parts, fmt.Sprintf("-%d %s", x.GetIndex(), x.GetName()))
		}
	}
	return strings.Join(parts, "|")
}

func action(name string) string {
	return fmt.Sprintf(`{"action": %q, "score": 7.5, "required_score": 15}`, name)
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct{ answer, attributes, want string }{
		{action("no action"), "", "ACCEPT|-0 X-Spam"},
		{action("greylist"), "", "ACCEPT|-0 X-Spam"},
		{action("my own"), "", "ACCEPT|-0 X-Spam"},
		{action("add header"), "", "ACCEPT|-0 X-Spam|+0 X-Spam: Yes"},
		{action("add header"), `add_header = "hold"`, "HOLD|-0 X-Spam|+0 X-Spam: Yes"},
		{action("reject"), `mark = "none"`, "REJECT|550 5.7.1 The message looks like spam"},
		{action("reject"), "mark = \"none\"\nreject = \"discard\"", "DISCARD"},
		{action("soft reject"), `mark = "none"`, "DEFER|451 4.7.1 Try again later"},
		{action("quarantine"), `mark = "none"`, "HOLD"},
		{action("discard"), `mark = "none"`, "DISCARD"},
		{`{"action": "reject", "messages": {"smtp_message": "Gtube\r\n250 OK"}}`, `mark = "none"`, "REJECT|550 5.7.1 Gtube??250 OK"},
		{`{"action": "soft reject", "messages": []}`, `mark = "none"`, "DEFER|451 4.7.1 Try again later"},
		{`{"action": "no action", "score": -0.5, "required_score": 15, "symbols": {"A": {"score": 0.1}, "B": {"score": -0.6}}}`, `mark = "all"`,
			"ACCEPT|-0 X-Spam|-0 X-Spam-Action|-0 X-Spam-Score|-0 X-Spam-Symbols|+0 X-Spam-Symbols: B, A|+0 X-Spam-Score: -0.50 / 15.00|+0 X-Spam-Action: no action"},
		{`{"action": "rewrite subject", "subject": "[SPAM] Hello"}`, "", "ACCEPT|-0 X-Spam|=1 Subject: [SPAM] Hello|+0 X-Spam: Yes"},
		{`{"action": "rewrite subject", "subject": "Grüße\r\nBcc: all@ryan.example"}`, `mark = "none"`, "ACCEPT|=1 Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_Bcc:_all@ryan.example?="},
		{`{"action": "rewrite subject", "subject": "[SPAM] Hello"}`, "mark = \"none\"\nchanges = false", "ACCEPT"},
		{`{"action": "no action", "dkim-signature": "v=1; a=rsa-sha256;\r\n\tb=AAAA", "milter": {"remove_headers": {"X-Old": -1, "X-Other": 0, "X-None": -2},
		  "add_headers": {"X-B": {"value": "b", "order": 1}, "X-A": ["a\nBcc: x", {"value": "a2"}]}}}`, `mark = "none"`,
			"ACCEPT|-2 X-Old|-0 X-Other|+-1 X-A: a\r\n\tBcc: x|+-1 X-A: a2|+1 X-B: b|+0 DKIM-Signature: v=1; a=rsa-sha256;\r\n\tb=AAAA"},
	} {
		for _, network := range []string{"tcp", "unix"} {
			r, err := asking(t, c.attributes, serve(t, network, saying(c.answer)))(sdktest.Message(t, letter))
			if got := said(r); err != nil || got != c.want {
				t.Errorf("%s %s: %q %v, want %q", c.answer, c.attributes, got, err, c.want)
			}
		}
	}
}

func TestTags(t *testing.T) {
	at := serve(t, "tcp", saying(`{"action": "add header", "score": 7.5, "required_score": 15, "symbols": {"A": {"score": 0.5}, "B": {"score": 7}}}`))
	r, err := asking(t, "", at)(sdktest.Message(t, letter))
	if err != nil {
		t.Fatal(err)
	}
	tag := r.GetTags()["rspamd"].GetMap().GetEntries()
	if tag["action"].GetText() != "add header" || tag["score"].GetNumber() != 7.5 || tag["required"].GetNumber() != 15 || !slices.Equal(tag["symbols"].GetList().GetValues(), []string{"B", "A"}) {
		t.Errorf("%v", tag)
	}
	if s := r.GetTags()["rspamd_symbols"].GetMap().GetEntries(); s["A"].GetNumber() != 0.5 || s["B"].GetNumber() != 7 {
		t.Errorf("%v", s)
	}
}

// What rspamd hears: the envelope, and the message's octets, a large one's too.
func TestQuestion(t *testing.T) {
	for _, text := range []string{letter, letter + strings.Repeat("A line of a longer story.\n", 20_000)} {
		want := strings.ReplaceAll(text, "\n", "\r\n")
		at := serve(t, "tcp", func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			h := r.Header
			for name, value := range map[string]string{
				"Password": "secret", "Settings-Id": "mx", "Mta-Tag": "edge", "From": "<tom@hanks.example>", "Rcpt": "<meg@ryan.example>",
				"Deliver-To": "meg@ryan.example", "Ip": "192.0.2.1", "Helo": "mx.hanks.example", "Message-Length": fmt.Sprint(len(want)),
			} {
				if got := h.Get(name); got != value {
					t.Errorf("%s is %q, not %q", name, got, value)
				}
			}
			if r.Method != http.MethodPost || r.URL.Path != "/checkv2" || string(body) != want || h.Get("Queue-Id") == "" || h["Idempotency-Key"] != nil {
				t.Errorf("%s %s %v with %d octets", r.Method, r.URL.Path, h, len(body))
			}
			_, _ = io.WriteString(w, action("no action"))
		})
		ask := asking(t, "password = \"secret\"\nsettings = \"mx\"\ntag = \"edge\"", at)
		for range 2 { // the second over the same connection
			if _, err := ask(sdktest.Message(t, text)); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestTrouble(t *testing.T) {
	for answer, want := range map[string]string{
		`{"error": "invalid command"}`:          "could not look at the message: invalid command",
		`{}`:                                    "names no action",
		`<html>`:                                "is not rspamd's JSON",
		`{"action": "no action", "score": "x"}`: "is not rspamd's JSON",
		strings.Repeat(" ", longestAnswer+1):    "more than 4194304 octets",
		`{"action": "no action", "milter": {"add_headers": {"X Y": "z"}}}`:                                    `"X Y" is no name of a header field`,
		`{"action": "no action", "milter": {"remove_headers": {"X\r\nY": 1}}}`:                                `"X??Y" is no name`,
		`{"action": "no action", "milter": {"add_headers": {"X": {"order": 1}}}}`:                             "has no value",
		`{"action": "no action", "milter": {"add_headers": {"X": ["` + strings.Repeat(`y", "`, 300) + `"]}}}`: "more than 200 changes",
		`{"action": "no action", "milter": {"add_headers": {"X": "` + strings.Repeat("y", 40_000) + `"}}}`:    "at most 32768",
	} {
		_, err := asking(t, "", serve(t, "tcp", saying(answer)))(sdktest.Message(t, letter))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %s", answer, err, want)
		}
	}
	forbidden := serve(t, "tcp", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "Unauthorized", http.StatusForbidden) })
	if _, err := asking(t, "", forbidden)(sdktest.Message(t, letter)); err == nil || !strings.Contains(err.Error(), "it answers 403: Unauthorized") {
		t.Errorf("%v", err)
	}
	silent := serve(t, "tcp", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	if _, err := asking(t, `scan_timeout = "50ms"`, silent)(sdktest.Message(t, letter)); err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("silence: %v", err)
	}
}

// A server that is down costs a look, and is then asked last; all down is no verdict.
func TestFailover(t *testing.T) {
	var asked atomic.Int32
	broken := serve(t, "tcp", func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	})
	good := serve(t, "tcp", saying(action("no action")))
	ask := asking(t, `mark = "none"`, broken, good)
	for range 3 {
		if r, err := ask(sdktest.Message(t, letter)); err != nil || said(r) != "ACCEPT" {
			t.Errorf("%s %v", said(r), err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the broken server was asked %d times", n)
	}
	gone := "unix:" + filepath.Join(t.TempDir(), "none.sock")
	if _, err := asking(t, "", broken, gone)(sdktest.Message(t, letter)); err == nil || !strings.Contains(err.Error(), "rspamd at "+gone) || !strings.Contains(err.Error(), "rspamd at "+broken) {
		t.Errorf("%v", err)
	}
}

// An https server is believed if an authority of ca vouches for it, and not else.
func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(saying(action("no action")))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := asking(t, fmt.Sprintf("mark = \"none\"\nca = %q", ca), s.URL)(sdktest.Message(t, letter)); err != nil || said(r) != "ACCEPT" {
		t.Errorf("%s %v", said(r), err)
	}
	if _, err := asking(t, "", s.URL)(sdktest.Message(t, letter)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a stranger's certificate: %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	at := serve(t, "tcp", func(http.ResponseWriter, *http.Request) { t.Error("it was asked") })
	for wish, want := range map[string]string{"accept": "ACCEPT", "hold": "HOLD", "reject": "REJECT|552 5.3.4 The message is too large to be looked at"} {
		r, err := asking(t, "max_size = \"10B\"\ntoo_large = \""+wish+`"`, at)(sdktest.Message(t, letter))
		if err != nil || said(r) != want || r.GetTags()["rspamd"].GetMap().GetEntries()["action"].GetText() != "too large" {
			t.Errorf("%s: %s %v", wish, said(r), err)
		}
	}
	if _, err := asking(t, "max_size = \"10B\"\ntoo_large = \"fail\"", at)(sdktest.Message(t, letter)); err == nil {
		t.Error("fail is a verdict")
	}
}

func TestMistakes(t *testing.T) {
	const there = "servers = [\"http://127.0.0.1:11333\"]\n"
	for config, want := range map[string]string{
		`servers = []`:                     "servers: name a server",
		`servers = ["http://127.0.0.1"]`:   `servers: "http://127.0.0.1" has no port`,
		`servers = ["http://a:1/checkv2"]`: `servers: "http://a:1/checkv2" is no address of a server`,
		`servers = ["127.0.0.1:11333"]`:    "servers: ",
		there + `password = "a\nb"`:        "password: it is one line",
		there + `text = ""`:                "text: it is one line",
		there + `connect_timeout = "0s"`:   "connect_timeout: it must be above zero",
		there + `scan_timeout = "0s"`:      "scan_timeout: it must be above zero",
	} {
		diags := sdktest.Diagnostics(t, Plugin(), config)
		if len(diags) != 1 || !strings.HasPrefix(diags[0], want) {
			t.Errorf("%s: %q, want %s", config, diags, want)
		}
	}
}

// FuzzAnswer: whatever rspamd says is an error, or edits that keep a header one.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		action("reject"), `{"action": "rewrite subject", "subject": "a\r\n\r\nb"}`, `{"action": "x", "messages": {"smtp_message": 5}}`,
		`{"action": "no action", "dkim-signature": ["a", "b"], "milter": {"remove_headers": {"X": [1, -1]}, "add_headers": {"X": [{"value": "1\n\n2", "order": 0}]}}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parse(b)
		if err != nil {
			return
		}
		v := filter.Accept()
		if a.change(v, nil) != nil {
			return
		}
		v.TagMap("rspamd", a.tags()).TagMap("rspamd_symbols", a.symbols())
		for _, e := range v.Reply().GetEdits() {
			value := string(e.GetInsertHeader().GetField().GetValue()) + string(e.GetReplaceHeader().GetValue())
			for i, line := range strings.Split(value, "\r\n") {
				if strings.ContainsAny(line, "\r\n\x00") || i > 0 && strings.Trim(line, " \t") == "" || i > 0 && line[0] != ' ' && line[0] != '\t' {
					t.Errorf("%q became %q", b, value)
				}
			}
		}
		if len(v.Reply().GetEdits()) > mostChanges+1 {
			t.Errorf("%d edits", len(v.Reply().GetEdits()))
		}
	})
}
