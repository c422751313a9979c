package policy

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

const letter = "Subject: Hello\n\nDon't you love New York in the fall?\n"

// server is a policy server that answers as a function says; "" ends the
// connection, "-" is silence.
type server struct {
	address  string
	listener net.Listener
	answer   func(request map[string]string) string
	done     sync.WaitGroup

	mu       sync.Mutex
	requests []map[string]string
	conns    []net.Conn
}

func serve(t *testing.T, answer func(map[string]string) string) *server {
	t.Helper()
	return serveOn(t, filepath.Join(t.TempDir(), "policy.sock"), answer)
}

func serveOn(t *testing.T, path string, answer func(map[string]string) string) *server {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: "unix:" + path, listener: l, answer: answer}
	s.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			s.done.Go(func() { s.talk(c) })
		}
	})
	t.Cleanup(s.close)
	return s
}

func (s *server) close() {
	_ = s.listener.Close()
	s.cut()
	s.done.Wait()
}

// cut ends the connections, as a server does that restarts.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
}

func (s *server) talk(c net.Conn) {
	defer c.Close()
	r := bufio.NewScanner(c)
	request := map[string]string{}
	for r.Scan() {
		if name, value, ok := strings.Cut(r.Text(), "="); ok {
			request[name] = value
			continue
		}
		s.mu.Lock()
		s.requests = append(s.requests, request)
		s.mu.Unlock()
		switch said := s.answer(request); said {
		case "":
			return
		case "-":
		default:
			if _, err := fmt.Fprintf(c, "%s\n\n", said); err != nil {
				return
			}
		}
		request = map[string]string{}
	}
}

func (s *server) asked() []map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func (s *server) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func always(said string) func(map[string]string) string {
	return func(map[string]string) string { return "action=" + said }
}

type asker = func(*v1.FilterCall) (*v1.FilterReply, error)

func asking(t *testing.T, s *server, attributes ...string) asker {
	t.Helper()
	return sdktest.Filter(t, Plugin(), fmt.Sprintf("address = %q\n%s", s.address, strings.Join(attributes, "\n")))
}

func said(v *v1.Verdict) string {
	r := v.GetReply()
	return strings.TrimSpace(fmt.Sprintf("%s %d %s %s%s", v.GetAction(), r.GetCode(), r.GetEnhanced(), r.GetText(), v.GetReason()))
}

func edits(r *v1.FilterReply) (out []string) {
	for _, e := range r.GetEdits() {
		switch e := e.GetEdit().(type) {
		case *v1.Edit_InsertHeader_:
			out = append(out, fmt.Sprintf("insert %d %s:%s", e.InsertHeader.GetPosition(), e.InsertHeader.GetField().GetName(), e.InsertHeader.GetField().GetValue()))
		case *v1.Edit_AddRecipient_:
			out = append(out, fmt.Sprintf("add %s %v", e.AddRecipient.GetRecipient().GetAddress(), e.AddRecipient.GetRecipient().GetNotify()))
		case *v1.Edit_DeleteRecipient_:
			out = append(out, fmt.Sprintf("remove %d", e.DeleteRecipient.GetIndex()))
		default:
			out = append(out, fmt.Sprintf("%T", e))
		}
	}
	return out
}

// What the server is asked, state by state, in Postfix's words.
func TestRequest(t *testing.T) {
	s := serve(t, always("DUNNO"))
	ask := asking(t, s, `states = ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE"]`, `context = "mx"`)
	rcpt := sdktest.Rcpt("meg@ryan.example")
	c := rcpt.Envelope.Client
	c.Rdns, c.User, c.AuthMechanism, c.TlsVersion, c.TlsCipher, c.Protocol = "mx.hanks.example", "tom", "PLAIN", "TLS 1.3", "TLS_AES_256_GCM_SHA384", "ESMTPSA"
	rcpt.Envelope.Sender = "tom\n@hanks.example"
	rcpt.Envelope.Parameters = &v1.MailParameters{DeclaredSize: 700, Auth: "tom@hanks.example"}
	for _, call := range []*v1.FilterCall{
		sdktest.Connect(), sdktest.Hello(), sdktest.Mail(), rcpt, sdktest.Envelope("meg@ryan.example", "nora@ryan.example"), sdktest.Message(t, letter),
	} {
		if r, err := ask(call); err != nil || r.GetVerdict().GetAction() != v1.Verdict_ACCEPT {
			t.Fatalf("%s: %v %v", call.GetEvent(), r, err)
		}
	}
	asked := s.asked()
	var states []string
	for _, a := range asked {
		states = append(states, a["protocol_state"]+" "+a["recipient"]+" "+a["recipient_count"])
	}
	if got := strings.Join(states, ", "); got != "CONNECT  0, EHLO  0, MAIL  0, RCPT meg@ryan.example 0, DATA  2, END-OF-MESSAGE meg@ryan.example 1" {
		t.Errorf("asked about %s", got)
	}
	for name, want := range map[string]string{
		"request": "smtpd_access_policy", "protocol_name": "ESMTP", "client_address": "192.0.2.1", "client_name": "mx.hanks.example", "client_port": "50124",
		"reverse_client_name": "mx.hanks.example", "helo_name": "mx.hanks.example", "sender": "tom?@hanks.example", "recipient": "meg@ryan.example",
		"instance": "test.1", "size": "700", "sasl_username": "tom", "sasl_method": "PLAIN", "sasl_sender": "tom@hanks.example", "encryption_protocol": "TLSv1.3",
		"encryption_cipher": "TLS_AES_256_GCM_SHA384", "encryption_keysize": "256", "policy_context": "mx", "queue_id": "", "stress": "",
	} {
		if got, there := asked[3][name]; got != want || !there {
			t.Errorf("%s=%s, want %s", name, got, want)
		}
	}
	if got := asked[5]["size"]; got != fmt.Sprint(len(letter)+3) {
		t.Errorf("the size of the message is %s", got)
	}
	if n := s.connections(); n != 1 {
		t.Errorf("%d connections for questions one after the other", n)
	}
}

// Answers at RCPT, and what then becomes of the message.
func TestActions(t *testing.T) {
	for _, c := range []struct {
		action, rcpt, message string
		edits                 []string
	}{
		{"OK", "ACCEPT 0", "ACCEPT 0", nil},
		{"dunno", "ACCEPT 0", "ACCEPT 0", nil},
		{"permit", "ACCEPT 0", "ACCEPT 0", nil},
		{"12345", "ACCEPT 0", "ACCEPT 0", nil},
		{"WARN look at this", "ACCEPT 0", "ACCEPT 0", nil},
		{"INFO look at this", "ACCEPT 0", "ACCEPT 0", nil},
		{"DEFER_IF_REJECT later", "ACCEPT 0", "ACCEPT 0", nil},
		{"REJECT", "REJECT 554 5.7.1 Access denied", "", nil},
		{"reject 5.1.1 no such list", "REJECT 554 5.1.1 no such list", "", nil},
		{"REJECT 4.1.1 odd", "REJECT 554 5.7.1 4.1.1 odd", "", nil},
		{"550 5.7.23 SPF fail", "REJECT 550 5.7.23 SPF fail", "", nil},
		{"550", "REJECT 550  Access denied", "", nil},
		{"451 greylisted \xfc", "DEFER 451  greylisted ?", "", nil},
		{"DEFER", "DEFER 450 4.7.1 Try again later", "", nil},
		{"DEFER_IF_PERMIT Greylisted, see http://postgrey.example/", "DEFER 450 4.7.1 Greylisted, see http://postgrey.example/", "", nil},
		{"421 4.3.2 bye", "DISCONNECT 421  bye", "", nil},
		{"521 5.3.2 bye", "DISCONNECT 421  bye", "", nil},
		{"PREPEND Received-SPF: pass (mx.ryan.example)", "ACCEPT 0", "ACCEPT 0", []string{"insert 0 Received-SPF: pass (mx.ryan.example)"}},
		{"PREPEND X-A:" + strings.Repeat(" word", 250), "ACCEPT 0", "ACCEPT 0", []string{"insert 0 X-A: " + strings.Repeat("word ", 179) + "word\r\n" + strings.Repeat(" word", 70)}},
		{"HOLD look at it", "ACCEPT 0", "HOLD 0  look at it", nil},
		{"HOLD", "ACCEPT 0", "HOLD 0  held by a policy server", nil},
		{"DISCARD gone", "ACCEPT 0", "DISCARD 0  gone", nil},
		{"REDIRECT nora@ryan.example", "ACCEPT 0", "ACCEPT 0", []string{"remove 0", "add nora@ryan.example []"}},
		{"BCC <archive@ryan.example>", "ACCEPT 0", "ACCEPT 0", []string{"add archive@ryan.example [NEVER]"}},
	} {
		ask := asking(t, serve(t, always(c.action)))
		r, err := ask(sdktest.Rcpt("meg@ryan.example"))
		if got := said(r.GetVerdict()); err != nil || got != c.rcpt || len(r.GetEdits()) > 0 {
			t.Errorf("%s at RCPT: %q %v, want %q", c.action, got, err, c.rcpt)
		}
		if c.message == "" {
			continue
		}
		r, err = ask(sdktest.Message(t, letter))
		if got := said(r.GetVerdict()); err != nil || got != c.message {
			t.Errorf("%s at the message: %q %v, want %q", c.action, got, err, c.message)
		}
		if got := edits(r); !slices.Equal(got, c.edits) {
			t.Errorf("%s edits\n%q, want\n%q", c.action, got, c.edits)
		}
	}
	// The same for two recipients is done once; a mail that came before has no part
	// in it.
	ask := asking(t, serve(t, always("PREPEND X-Seen: yes")))
	other := sdktest.Rcpt("kate@ryan.example")
	other.Envelope.Transaction = "test.0"
	for _, call := range []*v1.FilterCall{other, sdktest.Rcpt("meg@ryan.example"), sdktest.Rcpt("meg@ryan.example", "nora@ryan.example")} {
		if _, err := ask(call); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := ask(sdktest.Message(t, letter)); err != nil || len(r.GetEdits()) != 1 {
		t.Errorf("%v %v", edits(r), err)
	}
}

// Where there is no mail yet, HOLD and DISCARD are the connection's; what changes
// mail has none.
func TestBeforeMail(t *testing.T) {
	for action, want := range map[string]string{
		"HOLD odd": "HOLD 0  odd", "DISCARD": "DISCARD 0", "REJECT go": "REJECT 554 5.7.1 go", "PREPEND X-A: b": "no mail yet", "BCC meg@ryan.example": "no mail yet",
	} {
		r, err := asking(t, serve(t, always(action)), `states = ["CONNECT"]`)(sdktest.Connect())
		if got := fmt.Sprint(said(r.GetVerdict()), err); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", action, got, want)
		}
	}
}

// A process that was not there at RCPT asks again.
func TestAfterARestart(t *testing.T) {
	s := serve(t, func(request map[string]string) string {
		if request["recipient"] == "meg@ryan.example" {
			return "action=550 5.7.1 not her"
		}
		return "action=PREPEND X-Seen: yes"
	})
	call := sdktest.Message(t, letter)
	call.Envelope.Recipients = []*v1.Recipient{{Address: "meg@ryan.example", Index: 3}, {Address: "nora@ryan.example", Index: 5}}
	r, err := asking(t, s)(call)
	if err != nil || said(r.GetVerdict()) != "ACCEPT 0" || said(r.GetPerRecipient()[3]) != "REJECT 550 5.7.1 not her" || len(r.GetPerRecipient()) != 1 {
		t.Errorf("%v %v", r, err)
	}
	if got := edits(r); !slices.Equal(got, []string{"insert 0 X-Seen: yes"}) {
		t.Errorf("edits %q", got)
	}
}

// What is no answer is an error with a remedy, and on_failure decides.
func TestTrouble(t *testing.T) {
	for said, want := range map[string]string{
		"action=FILTER smtp:[127.0.0.1]:10025": "send the mail to that hop with a route block",
		"action=reject_unauth_destination":     "known are OK, DUNNO",
		"action=":                              "known are OK, DUNNO",
		"action=PREPEND nonsense":              "no header field",
		"action=BCC nobody":                    "no address",
		"status=fine":                          "has no action",
		"hello":                                "not NAME=VALUE",
		strings.Repeat("x=y\n", 10_000):        "longer than 16384 octets",
		"action=" + strings.Repeat("x", 20000): "longer than 16384 octets",
		"":                                     "EOF",
	} {
		s := serve(t, func(map[string]string) string { return said })
		_, err := asking(t, s)(sdktest.Rcpt("meg@ryan.example"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), s.address) {
			t.Errorf("%.40q: %v, want %q", said, err, want)
		}
	}
	if _, err := asking(t, serve(t, always("BCC meg@ryan.example")), "modify = false")(sdktest.Rcpt("meg@ryan.example")); err == nil || !strings.Contains(err.Error(), "modify = false") {
		t.Errorf("a server that may not change mail: %v", err)
	}
	if _, err := asking(t, serve(t, func(map[string]string) string { return "-" }), `reply_timeout = "50ms"`)(sdktest.Rcpt("meg@ryan.example")); !fail.Is(err, fail.Unavailable) {
		t.Errorf("silence: %v", err)
	}

	path := filepath.Join(t.TempDir(), "policy.sock")
	ask := sdktest.Filter(t, Plugin(), fmt.Sprintf("address = %q", "unix:"+path))
	call := sdktest.Rcpt("meg@ryan.example")
	if _, err := ask(call); !fail.Is(err, fail.Unavailable) {
		t.Errorf("down: %v", err)
	}
	for range 2 {
		// The second one finds the connection to the first.
		s := serveOn(t, path, always("OK"))
		if _, err := ask(call); err != nil {
			t.Errorf("restarted: %v", err)
		}
		s.cut()
		if _, err := ask(call); err != nil || s.connections() != 2 {
			t.Errorf("connection ended: %v, %d connections", err, s.connections())
		}
		s.close()
	}
}

func TestKeep(t *testing.T) {
	s := serve(t, always("OK"))
	ask := asking(t, s, `keep = "0s"`)
	for range 2 {
		if _, err := ask(sdktest.Rcpt("meg@ryan.example")); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.connections(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// What is remembered has an end in number and in time.
func TestMemory(t *testing.T) {
	now := time.Unix(1_171_494_123, 0)
	m := newMemory(func() time.Time { return now })
	hold := &action{word: "HOLD"}
	for i := range maxTransactions + 1 {
		m.add(fmt.Sprint(i), hold)
	}
	m.add("1", &action{word: "HOLD"})
	if _, known := m.take("0"); known || m.order.Len() != maxTransactions {
		t.Errorf("%d are remembered", m.order.Len())
	}
	now = now.Add(remembered + time.Second)
	m.add("new", &action{word: "OK"})
	if got, known := m.take("new"); !known || len(got) != 0 || m.order.Len() != 0 || len(m.byID) != 0 {
		t.Errorf("%v %v, %d are remembered", got, known, len(m.byID))
	}
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		`address = "private/policy"`:                                 `address: "private/policy" is no address: write unix:/path or inet:port@host`,
		"address = \"inet:127.0.0.1:10023\"\nstates = []":            "states: it would never be asked",
		"address = \"inet:127.0.0.1:10023\"\ncontext = \"a\\nb\"":    "context: it is one line",
		"address = \"inet:127.0.0.1:10023\"\nreply_timeout = \"0s\"": "reply_timeout: it must be above zero",
	} {
		diags := sdktest.Diagnostics(t, Plugin(), config)
		if len(diags) != 1 || !strings.HasPrefix(diags[0], want) {
			t.Errorf("%s: %q, want %s", config, diags, want)
		}
	}
}

func TestConform(t *testing.T) {
	sdktest.Conform(t, Plugin(), fmt.Sprintf("address = %q", serve(t, always("PREPEND X-Seen-By: policy")).address), conform.Facts{})
}

// FuzzAnswer: whatever a server says is an action that can be carried out, or an
// error.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"action=OK\n\n", "action=550 5.7.1 no\r\n\r\n", "a=b\naction=PREPEND X-A: b\n\n", "action=REDIRECT <meg@ryan.example>\n\n",
		"action=DEFER_IF_PERMIT 4.7.1 later\n\n", "action=HOLD\n", "\n", "action=PREPEND X:" + strings.Repeat(" y", 2000) + "\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := readAnswer(bufio.NewReaderSize(strings.NewReader(string(b)), maxAnswer))
		if err != nil {
			return
		}
		a, err := parse(text)
		if err != nil {
			return
		}
		v := a.early().Reply().GetVerdict()
		if code := v.GetReply().GetCode(); code != 0 && (code < 400 || code > 599) || len(v.GetReply().GetText()) > 500 || strings.ContainsAny(v.GetReply().GetText(), "\r\n\x00") {
			t.Errorf("%q became %v", text, v)
		}
		if e := v.GetReply().GetEnhanced(); e != "" && int32(e[0]-'0') != v.GetReply().GetCode()/100 {
			t.Errorf("%q became %v", text, v)
		}
		if strings.ContainsAny(a.name, " :\r\n\x00") || strings.ContainsAny(strings.ReplaceAll(a.value, "\r\n ", ""), "\r\n\x00") || strings.ContainsAny(a.target, "<>\r\n") {
			t.Errorf("%q became %+v", text, a)
		}
	})
}
