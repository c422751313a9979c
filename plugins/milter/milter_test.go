package milter_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/milter"
	"github.com/stagecoach-mta/stagecoach/plugins/milter/miltertest"
	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

const (
	letter = `Received: from mx.hanks.example
	by mx.ryan.example (Stagecoach); Thu, 15 Feb 2007 01:02:03 +0200
Subject: Hello
X-Note: one
X-Note: two

Don't you love New York in the fall?
`
	all       = 0x1ff // SMFIF_…
	canSkip   = 0x400
	wantsGone = 0x800
)

type packets = []miltertest.Packet

// serve starts a milter and returns it with its address.
func serve(t *testing.T, script miltertest.Script) (*miltertest.Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "milter.sock")
	return serveOn(t, path, script), "unix:" + path
}

func serveOn(t *testing.T, path string, script miltertest.Script) *miltertest.Server {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := miltertest.Serve(l, script)
	t.Cleanup(s.Close)
	return s
}

// at answers certain commands, and Continue to others.
func at(answers map[byte]packets) func(byte, string) packets {
	return func(command byte, _ string) packets {
		if a, ok := answers[command]; ok {
			return a
		}
		return miltertest.Continue()
	}
}

type asker = func(*v1.FilterCall) (*v1.FilterReply, error)

func filter(t *testing.T, address string, attributes ...string) asker {
	t.Helper()
	return sdktest.Filter(t, milter.Plugin(), fmt.Sprintf("address = %q\n%s", address, strings.Join(attributes, "\n")))
}

// asked is the answer of a milter that does what the script says about the letter.
func asked(t *testing.T, script miltertest.Script, attributes ...string) (*v1.FilterReply, error) {
	t.Helper()
	_, address := serve(t, script)
	return filter(t, address, attributes...)(sdktest.Message(t, letter))
}

func words(v *v1.Verdict) string {
	r := v.GetReply()
	return strings.TrimSpace(fmt.Sprintf("%s %d %s %s%s", v.GetAction(), r.GetCode(), r.GetEnhanced(), r.GetText(), v.GetReason()))
}

func edits(r *v1.FilterReply) (out []string) {
	for _, e := range r.GetEdits() {
		switch e := e.GetEdit().(type) {
		case *v1.Edit_InsertHeader_:
			out = append(out, fmt.Sprintf("insert %d %s:%s", e.InsertHeader.GetPosition(), e.InsertHeader.GetField().GetName(), e.InsertHeader.GetField().GetValue()))
		case *v1.Edit_ReplaceHeader_:
			out = append(out, fmt.Sprintf("replace %s %d:%s", e.ReplaceHeader.GetName(), e.ReplaceHeader.GetIndex(), e.ReplaceHeader.GetValue()))
		case *v1.Edit_DeleteHeader_:
			out = append(out, fmt.Sprintf("delete %s %d", e.DeleteHeader.GetName(), e.DeleteHeader.GetIndex()))
		case *v1.Edit_ReplaceBody_:
			ref := e.ReplaceBody.GetBody()
			body := ref.GetInline()
			if ref.GetPath() != "" {
				body, _ = os.ReadFile(ref.GetPath())
			}
			out = append(out, fmt.Sprintf("body %d %.9s", len(body), body))
		case *v1.Edit_SetSender_:
			out = append(out, fmt.Sprintf("sender <%s> %s", e.SetSender.GetAddress(), e.SetSender.GetParameters().GetDsnReturn()))
		case *v1.Edit_AddRecipient_:
			out = append(out, fmt.Sprintf("add %s %v %s", e.AddRecipient.GetRecipient().GetAddress(), e.AddRecipient.GetRecipient().GetNotify(), e.AddRecipient.GetRecipient().GetOriginalRecipient()))
		case *v1.Edit_DeleteRecipient_:
			out = append(out, fmt.Sprintf("remove %d", e.DeleteRecipient.GetIndex()))
		}
	}
	return out
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWhatTheMilterHears(t *testing.T) {
	s, address := serve(t, miltertest.Script{})
	call := sdktest.Message(t, letter)
	call.Envelope.Recipients = append(call.Envelope.Recipients, &v1.Recipient{
		Address: "nora@ryan.example", Index: 1, Notify: []string{"FAILURE", "DELAY"}, OriginalRecipient: "rfc822;a b@ryan.example",
	})
	call.Envelope.Parameters = &v1.MailParameters{Body: "8BITMIME", DeclaredSize: 700, DsnReturn: "HDRS", EnvelopeId: "a+b", Smtputf8: true, Auth: "tom@hanks.example"}
	c := call.Envelope.Client
	c.Rdns, c.User, c.AuthMechanism, c.Tls, c.TlsVersion, c.TlsCipher = "mx.hanks.example", "tom", "PLAIN", true, "TLS 1.3", "TLS_AES_128_GCM_SHA256"
	if _, err := filter(t, address, `macros = { "{daemon_name}" = "MTA" }`)(call); err != nil {
		t.Fatal(err)
	}
	same(t, "the milter heard", s.Log(), strings.Split(`O
D C j=mx.ryan.example _=mx.hanks.example [192.0.2.1] v=Stagecoach {daemon_name}=MTA {client_addr}=192.0.2.1 {client_name}=mx.hanks.example {client_ptr}=mx.hanks.example {client_port}=50124 {client_resolve}=OK
C mx.hanks.example 4 50124 192.0.2.1
D H {tls_version}=TLSv1.3 {cipher}=TLS_AES_128_GCM_SHA256 {cipher_bits}=128
H mx.hanks.example
D M i=test.1 {auth_type}=PLAIN {auth_authen}=tom {auth_author}=tom@hanks.example {mail_addr}=tom@hanks.example {mail_host}=hanks.example {mail_mailer}=esmtp
M <tom@hanks.example> SIZE=700 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb AUTH=tom@hanks.example
D R i=test.1 {rcpt_addr}=meg@ryan.example {rcpt_host}=ryan.example {rcpt_mailer}=esmtp
R <meg@ryan.example>
D R i=test.1 {rcpt_addr}=nora@ryan.example {rcpt_host}=ryan.example {rcpt_mailer}=esmtp
R <nora@ryan.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;a+20b@ryan.example
D T i=test.1
T
L Subject Hello
L X-Note one
L X-Note two
D N i=test.1
N
B 38
D E i=test.1
E`, "\n")...)
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		command byte
		answer  packets
		want    string
	}{
		{'E', packets{{Code: 'c'}}, "ACCEPT 0"},
		{'E', packets{{Code: 'p'}, {Code: 'a'}}, "ACCEPT 0"},
		{'E', packets{{Code: 'r'}}, "REJECT 550 5.7.1 Command rejected"},
		{'E', packets{{Code: 't'}}, "DEFER 451 4.7.1 Service unavailable - try again later"},
		{'E', packets{{Code: 'd'}}, "DISCARD 0  the milter discards the message"},
		{'E', packets{{Code: '4'}}, "DISCONNECT 421 4.7.0 Server closing connection"},
		{'E', packets{miltertest.Say('q', "looks odd"), {Code: 'a'}}, "HOLD 0  looks odd"},
		{'E', packets{miltertest.Say('y', "554 5.6.0 100%% virus")}, "REJECT 554 5.6.0 100% virus"},
		{'E', packets{miltertest.Say('y', "550-5.7.1 one\r\n550 5.7.1 two")}, "REJECT 550 5.7.1 one two"},
		{'E', packets{miltertest.Say('y', "451 4.7.1 gr\xfcn\r")}, "DEFER 451 4.7.1 gr?n"},
		{'E', packets{miltertest.Say('y', "550 4.7.1 classes")}, "REJECT 550  classes"},
		{'E', packets{miltertest.Say('y', "421 4.3.2 bye")}, "DISCONNECT 421 4.3.2 bye"},
		{'E', packets{miltertest.Say('y', "250 fine")}, "DEFER 451 4.7.1 Service unavailable - try again later"},
		{'C', packets{{Code: 'a'}}, "ACCEPT 0"},
		{'C', packets{{Code: 'r'}}, "REJECT 550 5.7.1 Command rejected"},
		{'H', packets{miltertest.Say('y', "550 5.7.1 bad name")}, "REJECT 550 5.7.1 bad name"},
		{'M', packets{{Code: 'd'}}, "DISCARD 0  the milter discards the message"},
		{'R', packets{{Code: 'd'}}, "DISCARD 0  the milter discards the message"},
		{'R', packets{{Code: 'a'}}, "ACCEPT 0"},
		{'R', packets{{Code: '4'}}, "DISCONNECT 421 4.7.0 Server closing connection"},
		{'T', packets{{Code: 'r'}}, "REJECT 550 5.7.1 Command rejected"},
		{'L', packets{{Code: 't'}}, "DEFER 451 4.7.1 Service unavailable - try again later"},
		{'N', packets{{Code: 'a'}}, "ACCEPT 0"},
		{'B', packets{{Code: 'r'}}, "REJECT 550 5.7.1 Command rejected"},
		{'B', packets{{Code: 's'}}, "ACCEPT 0"},
	} {
		r, err := asked(t, miltertest.Script{Actions: all, Steps: canSkip, Answer: at(map[byte]packets{c.command: c.answer})})
		if got := words(r.GetVerdict()); err != nil || got != c.want {
			t.Errorf("%q to %q: %q %v, want %q", c.answer, c.command, got, err, c.want)
		}
	}
	// A reply longer than a line.
	r, err := asked(t, miltertest.Script{Answer: at(map[byte]packets{'E': {miltertest.Say('y', "550 5.7.1 "+strings.Repeat("long ", 500))}})})
	if n := len(r.GetVerdict().GetReply().GetText()); err != nil || n < 400 || n > 500 {
		t.Errorf("a long reply has %d octets: %v", n, err)
	}
}

// One of two recipients is refused: before the message it is told at once, and
// where the milter hears all together the other one still gets the mail.
func TestRefusedRecipient(t *testing.T) {
	script := miltertest.Script{Answer: func(command byte, data string) packets {
		if command == 'R' && strings.HasPrefix(data, "<meg@") {
			return packets{miltertest.Say('y', "550 5.1.1 not here")}
		}
		return miltertest.Continue()
	}}
	s, address := serve(t, script)
	ask := filter(t, address)
	r, err := ask(sdktest.Rcpt("meg@ryan.example"))
	if got := words(r.GetVerdict()); err != nil || got != "REJECT 550 5.1.1 not here" {
		t.Errorf("at RCPT: %s %v", got, err)
	}
	if r, err = ask(sdktest.Rcpt("nora@ryan.example")); err != nil || r.GetVerdict().GetAction() != v1.Verdict_ACCEPT {
		t.Errorf("the other one at RCPT: %v %v", r, err)
	}
	call := sdktest.Message(t, letter)
	call.Envelope.Recipients = []*v1.Recipient{{Address: "nora@ryan.example"}}
	if r, err = ask(call); err != nil || r.GetVerdict().GetAction() != v1.Verdict_ACCEPT || len(r.GetPerRecipient()) != 0 {
		t.Errorf("the message: %v %v", r, err)
	}
	if got := strings.Join(s.Log(), "\n"); strings.Count(got, "\nM <tom") != 1 || strings.Count(got, "\nR <") != 2 || strings.Contains(got, "\nA") {
		t.Errorf("the milter heard more than once what it knew:\n%s", got)
	}

	_, address = serve(t, script)
	ask = filter(t, address, "early = []")
	call.Envelope.Recipients = []*v1.Recipient{{Address: "meg@ryan.example", Index: 4}, {Address: "nora@ryan.example", Index: 7}}
	r, err = ask(call)
	if got := words(r.GetPerRecipient()[4]); err != nil || r.GetVerdict().GetAction() != v1.Verdict_ACCEPT || got != "REJECT 550 5.1.1 not here" || len(r.GetPerRecipient()) != 1 {
		t.Errorf("with the message: %v %v", r, err)
	}
	call.Envelope.Recipients = call.Envelope.Recipients[:1]
	if r, err = ask(call); err != nil || words(r.GetPerRecipient()[4]) != "REJECT 550 5.1.1 not here" {
		t.Errorf("nobody is left: %v %v", r, err)
	}
}

func TestChanges(t *testing.T) {
	for name, c := range map[string]struct {
		changes packets
		want    []string
	}{
		"fields": {packets{
			miltertest.Say('h', "X-End", "1"), miltertest.Indexed('i', 0, "X-Top", "2"), miltertest.Indexed('i', 2, "X-Below-Trace", "3\n 4"),
			miltertest.Indexed('i', 99, "X-Last", "5"),
		}, []string{"insert 0 X-Top: 2", "insert 1 X-Below-Trace: 3\r\n 4", "insert 4 X-End: 1", "insert 4 X-Last: 5"}},
		"insertion below the trace field": {packets{miltertest.Indexed('i', 1, "DKIM-Signature", "v=1;\r\n\tb=x\n")}, []string{"insert 1 DKIM-Signature: v=1;\r\n\tb=x"}},
		"fields replaced, deleted and missing": {packets{
			miltertest.Indexed('m', 1, "subject", "Hi"), miltertest.Indexed('m', 2, "X-Note", ""), miltertest.Indexed('m', 1, "X-New", "y"),
			miltertest.Indexed('m', 7, "X-Note", ""), miltertest.Indexed('m', 1, "Received", "hidden"),
		}, []string{"replace Subject 1: Hi", "delete X-Note 2", "insert 4 X-New: y", "insert 4 Received: hidden"}},
		"one after the other": {packets{
			miltertest.Say('h', "X-Note", "three"), miltertest.Indexed('m', 3, "X-Note", "drei"), miltertest.Indexed('m', 1, "X-Note", ""),
			miltertest.Indexed('m', 2, "X-Note", "zwei"), miltertest.Say('h', "X-Gone", "x"), miltertest.Indexed('m', 1, "X-Gone", ""),
		}, []string{"delete X-Note 1", "replace X-Note 2: zwei", "insert 4 X-Note: drei"}},
		"lines that would be fields": {packets{miltertest.Say('h', "X-A", "1\nBcc: all\n\nbody\r2")}, []string{"insert 4 X-A: 1\r\n\tBcc: all\r\n\tbody\r\n\t2"}},
		"the body":                   {packets{{Code: 'b', Data: "New "}, {Code: 'b', Data: "body\r\n"}}, []string{"body 10 New body\r"}},
		"no body":                    {packets{{Code: 'b'}}, []string{"body 0 "}},
		"a large body":               {packets{{Code: 'b', Data: strings.Repeat("y", 60<<10)}}, []string{"body 61440 yyyyyyyyy"}},
		"recipients": {packets{
			miltertest.Say('+', "<joe@reed.example>"), miltertest.Say('+', "joe@reed.example"), miltertest.Say('+', "<meg@ryan.example>"),
			miltertest.Say('2', "<kate@ryan.example>", "NOTIFY=SUCCESS,delay ORCPT=rfc822;k+2Bt@ryan.example"), miltertest.Say('+', "<gone@ryan.example>"), miltertest.Say('-', "<gone@ryan.example>"),
		}, []string{"add joe@reed.example [] ", "add kate@ryan.example [SUCCESS DELAY] rfc822;k+t@ryan.example"}},
		"a recipient in place of another": {packets{miltertest.Say('-', "<MEG@ryan.example>"), miltertest.Say('-', "<nobody@ryan.example>"), miltertest.Say('+', "<nora@ryan.example>")}, []string{"remove 0", "add nora@ryan.example [] "}},
		"the sender":                      {packets{miltertest.Say('e', "<joe@reed.example>")}, []string{"sender <joe@reed.example> "}},
		"the null sender":                 {packets{miltertest.Say('e', "<>", "RET=HDRS SIZE=5")}, []string{"sender <> HDRS"}},
		"held, and changed too":           {packets{miltertest.Say('q', "odd"), miltertest.Say('h', "X-A", "1")}, []string{"insert 4 X-A: 1"}},
	} {
		r, err := asked(t, miltertest.Script{Actions: all, Answer: at(map[byte]packets{'E': append(c.changes, miltertest.Packet{Code: 'c'})})})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		same(t, name, edits(r), c.want...)
	}
	for name, c := range map[string]miltertest.Packet{
		"a field's name":   miltertest.Say('h', "No Name", "1"),
		"a recipient":      miltertest.Say('+', "<nobody>"),
		"a parameter":      miltertest.Say('2', "<meg@ryan.example>", "SIZE=1"),
		"the sender":       miltertest.Say('e', "<a b@c>"),
		"a sender's words": miltertest.Say('e', "<a@ryan.example>", "FOO=1"),
	} {
		if r, err := asked(t, miltertest.Script{Actions: all, Answer: at(map[byte]packets{'E': {c, {Code: 'a'}}})}); err == nil || !strings.Contains(err.Error(), "wants to change cannot be") {
			t.Errorf("%s: %v %v", name, r, err)
		}
	}
}

// A milter that may not change anything is not offered to, and is a judge.
func TestModify(t *testing.T) {
	p := milter.Plugin()
	in := sdktest.Start(t, p, `address = "inet:1@127.0.0.1"
modify = false
early = ["connect", "rejected"]`)
	if got := in.Interest; got.GetEffect() != v1.FilterInterest_JUDGE || !slices.Contains(got.GetEvents(), v1.FilterEvent_CONNECT) || !slices.Contains(got.GetEvents(), v1.FilterEvent_RCPT_REJECTED) || slices.Contains(got.GetEvents(), v1.FilterEvent_RCPT) {
		t.Errorf("interest %v", got)
	}
	_, err := asked(t, miltertest.Script{Actions: all}, "modify = false")
	if err == nil || !strings.Contains(err.Error(), "not allowed to") {
		t.Errorf("a milter that wants to change all the same: %v", err)
	}
}

// One connection serves a client's whole session, and then the next client's if it
// may.
func TestOneConnection(t *testing.T) {
	s, address := serve(t, miltertest.Script{})
	ask := filter(t, address, "reuse = true", `early = ["connect", "helo", "mail", "rcpt"]`)
	session := func(port int32, transactions ...string) {
		t.Helper()
		calls := []*v1.FilterCall{sdktest.Connect(), sdktest.Hello()}
		for _, id := range transactions {
			for _, c := range []*v1.FilterCall{sdktest.Mail(), sdktest.Rcpt("meg@ryan.example"), sdktest.Message(t, letter)} {
				c.Envelope.Transaction = id
				calls = append(calls, c)
			}
		}
		for _, c := range calls {
			c.Envelope.Client.Port = port
			if _, err := ask(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	session(50001, "c1.1", "c1.2")
	session(50002, "c2.1")
	log := strings.Join(s.Log(), "\n")
	if n := s.Connections(); n != 1 || strings.Count(log, "\nC ") != 2 || strings.Count(log, "\nH ") != 2 || strings.Count(log, "\nM ") != 3 || strings.Count(log, "\nK") != 1 || strings.Contains(log, "\nA") {
		t.Errorf("%d connections:\n%s", n, log)
	}

	// A transaction that was given up is taken back.
	c := sdktest.Rcpt("meg@ryan.example")
	c.Envelope.Client.Port, c.Envelope.Transaction = 50002, "c2.2"
	if _, err := ask(c); err != nil {
		t.Fatal(err)
	}
	c.Envelope.Transaction = "c2.3"
	if _, err := ask(c); err != nil {
		t.Fatal(err)
	}
	if log := s.Log(); !slices.Contains(log[len(log)-6:], "A") || s.Connections() != 1 {
		t.Errorf("the milter heard last:\n%s", strings.Join(log[len(log)-6:], "\n"))
	}
	// While a client is in a transaction, another one has a connection of its own.
	c.Envelope.Client.Port, c.Envelope.Transaction = 50003, "c3.1"
	if _, err := ask(c); err != nil {
		t.Fatal(err)
	}
	if n := s.Connections(); n != 2 {
		t.Errorf("%d connections for two transactions", n)
	}
}

// An older milter cannot be told of a further client; one that is not to be kept
// hears goodbye.
func TestConnectionsOfTheirOwn(t *testing.T) {
	for name, c := range map[string]struct {
		version   uint32
		attribute string
	}{"version 4": {4, "reuse = true"}, "no reuse": {6, `keep = "1h"`}, "keep": {6, `keep = "0s"`}} {
		s, address := serve(t, miltertest.Script{Version: c.version})
		ask := filter(t, address, c.attribute)
		for port := range int32(2) {
			call := sdktest.Message(t, letter)
			call.Envelope.Client.Port = 50000 + port
			if _, err := ask(call); err != nil {
				t.Fatal(err)
			}
		}
		if s.Connections() != 2 {
			t.Errorf("%s: %d connections", name, s.Connections())
		}
		if name != "keep" {
			continue
		}
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			if log := strings.Join(s.Log(), "\n"); strings.Count(log, "\nQ") == 2 {
				break
			} else if time.Now().After(end) {
				t.Fatalf("%s: no goodbye:\n%s", name, log)
			}
		}
	}
}

// What another filter refused or changed after the milter had heard it is told
// anew, so that the milter judges the mail that there is.
func TestTheEnvelopeIsTheTruth(t *testing.T) {
	s, address := serve(t, miltertest.Script{})
	ask := filter(t, address)
	for _, to := range []string{"meg@ryan.example", "nora@ryan.example"} {
		if _, err := ask(sdktest.Rcpt(to)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ask(sdktest.Message(t, letter)); err != nil {
		t.Fatal(err)
	}
	log := s.Log()
	from := slices.Index(log, "A")
	if from < 0 || strings.Contains(strings.Join(log[from:], "\n"), "nora@") || !slices.Contains(log[from:], "R <meg@ryan.example>") {
		t.Errorf("the milter heard:\n%s", strings.Join(log, "\n"))
	}
}

// The client that greets again, under TLS, is told again.
func TestGreetsAgain(t *testing.T) {
	s, address := serve(t, miltertest.Script{})
	ask := filter(t, address, `early = ["helo"]`)
	call := sdktest.Hello()
	if _, err := ask(call); err != nil {
		t.Fatal(err)
	}
	call.Envelope.Client.TlsVersion, call.Envelope.Client.TlsCipher = "TLS 1.3", "TLS_CHACHA20_POLY1305_SHA256"
	if _, err := ask(call); err != nil {
		t.Fatal(err)
	}
	if log := s.Log(); strings.Count(strings.Join(log, "\n"), "\nH mx.hanks.example") != 2 || !slices.Contains(log, "D H {tls_version}=TLSv1.3 {cipher}=TLS_CHACHA20_POLY1305_SHA256 {cipher_bits}=256") {
		t.Errorf("the milter heard:\n%s", strings.Join(log, "\n"))
	}
}

// A recipient that the server refused is told if the milter asked for it.
func TestRejectedRecipient(t *testing.T) {
	for steps, want := range map[uint32]bool{0: false, wantsGone: true} {
		s, address := serve(t, miltertest.Script{Steps: steps, Answer: at(map[byte]packets{'R': {{Code: 'r'}}})})
		r, err := filter(t, address, `early = ["rejected"]`)(sdktest.RcptRejected("nobody@ryan.example", 550, "5.1.1", "No such user here"))
		if err != nil || r.GetVerdict().GetAction() != v1.Verdict_ACCEPT {
			t.Errorf("%v %v", r, err)
		}
		log := s.Log()
		heard := slices.Contains(log, "R <nobody@ryan.example>") && slices.Contains(log, "D R i=test.1 {rcpt_addr}=No such user here {rcpt_host}=5.1.1 {rcpt_mailer}=error")
		if heard != want {
			t.Errorf("steps %#x: the milter heard\n%s", steps, strings.Join(log, "\n"))
		}
	}
}

// Behind the queue, and without a client, the milter hears all at once.
func TestBehindTheQueue(t *testing.T) {
	s, address := serve(t, miltertest.Script{Actions: all, Answer: at(map[byte]packets{'E': {miltertest.Say('h', "X-A", "1"), {Code: 'a'}}})})
	ask := filter(t, address)
	for range 2 {
		call := sdktest.PreDelivery(t, letter)
		call.Envelope.Client = nil
		r, err := ask(call)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "edits", edits(r), "insert 4 X-A: 1")
	}
	log := strings.Join(s.Log(), "\n")
	if !strings.Contains(log, "C localhost 4 0 127.0.0.1") || strings.Count(log, "\nM ") != 2 || !strings.Contains(log, "D M i=test ") || s.Connections() != 1 {
		t.Errorf("the milter heard:\n%s", log)
	}
}

// Trouble is never a verdict: a milter that is down, that ends in the middle, that
// is silent or that talks nonsense is an error, and on_failure decides.
func TestTrouble(t *testing.T) {
	path := filepath.Join(t.TempDir(), "milter.sock")
	ask := filter(t, "unix:"+path)
	unavailable := func(what string, err error) {
		t.Helper()
		if !fail.Is(err, fail.Unavailable) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := ask(sdktest.Message(t, letter))
	unavailable("down", err)

	// It comes up, and is killed after the recipient was told.
	s := serveOn(t, path, miltertest.Script{})
	if _, err := ask(sdktest.Rcpt("meg@ryan.example")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	_, err = ask(sdktest.Message(t, letter))
	unavailable("killed between recipient and message", err)

	// It is there again in the middle of another mail: the message brings it all.
	s = serveOn(t, path, miltertest.Script{})
	if _, err := ask(sdktest.Rcpt("meg@ryan.example")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = serveOn(t, path, miltertest.Script{})
	if _, err := ask(sdktest.Message(t, letter)); err != nil {
		t.Errorf("restarted in the middle: %v", err)
	}
	if log := strings.Join(s.Log(), "\n"); !strings.Contains(log, "\nR <meg@") || !strings.Contains(log, "\nE") {
		t.Errorf("the new one heard:\n%s", log)
	}
	s.Close()

	for name, answer := range map[string]packets{"it ends in the body": miltertest.Hangup(), "nonsense": {{Code: 'z'}}, "it cannot serve": {{Code: 'f'}}} {
		s := serveOn(t, path, miltertest.Script{Answer: at(map[byte]packets{'B': answer})})
		_, err := ask(sdktest.Message(t, letter))
		unavailable(name, err)
		s.Close()
	}

	// Silence: its own limit, and the caller's.
	_, address := serve(t, miltertest.Script{Answer: at(map[byte]packets{'E': nil})})
	if _, err = filter(t, address, `reply_timeout = "50ms"`)(sdktest.Message(t, letter)); !fail.Is(err, fail.Unavailable) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("silence: %v", err)
	}
}

// A milter that talks for ever is no way to fill the memory.
func TestEndlessChanges(t *testing.T) {
	var said atomic.Int64
	_, err := asked(t, miltertest.Script{Actions: all, Answer: func(command byte, _ string) packets {
		if command == 'E' {
			said.Add(1)
			return slices.Repeat(packets{{Code: 'b', Data: strings.Repeat("x", 64<<10)}}, 40)
		}
		return miltertest.Continue()
	}}, `max_change = "1MB"`)
	if err == nil || !strings.Contains(err.Error(), "changes more than 1048576 octets") {
		t.Errorf("%d times: %v", said.Load(), err)
	}
}

func TestMistakes(t *testing.T) {
	for config, want := range map[string]string{
		`address = "localhost:8891"`:                                   `address: "localhost" is no kind of socket: write unix:/path or inet:port@host`,
		`address = "8891"`:                                             `address: "8891" is no address`,
		`address = "unix:run/milter"`:                                  `address: the socket's path "run/milter" must be absolute`,
		`address = "inet:0@localhost"`:                                 `address: "0" is no port`,
		`address = "inet:8891"`:                                        `address: "inet:8891" is no address: write inet:port@host`,
		`address = "inet:8891@"`:                                       `address: "inet:8891@" names no host`,
		"address = \"inet:1@h\"\nchunk = \"100KB\"":                    "chunk: milters know",
		"address = \"inet:1@h\"\nmacros = { \"daemon_name\" = \"x\" }": `macros: "daemon_name" is no macro`,
		"address = \"inet:1@h\"\nreply_timeout = \"0s\"":               "reply_timeout: it must be above zero",
	} {
		diags := sdktest.Diagnostics(t, milter.Plugin(), config)
		if len(diags) != 1 || !strings.HasPrefix(diags[0], want) {
			t.Errorf("%s: %q, want %s", config, diags, want)
		}
	}
	for _, good := range []string{"unix:/run/m.sock", "local:/run/m.sock", "inet:8891@localhost", "inet:localhost:8891", "inet6:8891@[::1]", "inet:[::1]:8891"} {
		if diags := sdktest.Diagnostics(t, milter.Plugin(), fmt.Sprintf("address = %q", good)); len(diags) != 0 {
			t.Errorf("%s: %q", good, diags)
		}
	}
}

func TestConform(t *testing.T) {
	_, address := serve(t, miltertest.Script{Actions: all, Answer: at(map[byte]packets{
		'E': {miltertest.Say('h', "X-Seen-By", "milter"), miltertest.Indexed('m', 1, "Subject", "Seen"), {Code: 'b', Data: strings.Repeat("x\r\n", 10000)}, {Code: 'a'}},
	})})
	sdktest.Conform(t, milter.Plugin(), fmt.Sprintf("address = %q", address), conform.Facts{})
}
