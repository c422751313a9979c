package tryout

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/message"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// Mail is what the plugin is tried with.
type Mail struct {
	From string
	To   []string
	// Text has CRLF line ends; empty: a sample.
	Text []byte
}

// Exchange is one question and its answer.
type Exchange struct {
	// Name of the question: MESSAGE, Deliver, Resolve.
	Name string
	// Call as it was sent; nil for a connection to an access plugin.
	Call    *v1.Call
	Replies []*v1.Reply
	Err     error
	Took    time.Duration
	// Edits say in words what the answer changes; Ignored why nothing of it counts.
	Edits   []string
	Ignored string
	// Changes are the lines of the header that the edits took out (-) and put in (+).
	Changes []string
	// Said is what an access plugin greets with.
	Said string
}

// Outcome is what becomes of the mail, in words; Failed if the plugin gave no
// answer, or one that breaks the contract.
type Outcome struct {
	Lines  []string
	Failed bool
}

func (o *Outcome) say(format string, args ...any) {
	o.Lines = append(o.Lines, fmt.Sprintf(format, args...))
}

// tap tells of each call.
type tap struct {
	to   stream.Caller
	tell func(*Exchange)
	mu   sync.Mutex
}

var _ stream.Caller = (*tap)(nil)

// Call implements stream.Caller.
func (t *tap) Call(ctx context.Context, call *v1.Call) (*v1.Reply, error) {
	begin := time.Now()
	reply, err := t.to.Call(ctx, call)
	x := &Exchange{Name: nameOf(call), Call: call, Err: err, Took: time.Since(begin)}
	if err == nil {
		x.Replies = []*v1.Reply{reply}
	}
	t.note(x)
	return reply, err
}

// Stream implements stream.Caller.
func (t *tap) Stream(ctx context.Context, call *v1.Call, each func(*v1.Reply) error) error {
	begin := time.Now()
	x := &Exchange{Name: nameOf(call), Call: call}
	x.Err = t.to.Stream(ctx, call, func(r *v1.Reply) error {
		x.Replies = append(x.Replies, r)
		return each(r)
	})
	x.Took = time.Since(begin)
	t.note(x)
	return x.Err
}

func (t *tap) note(x *Exchange) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell(x)
}

// nameOf a call: the filter's event, or the operation.
func nameOf(call *v1.Call) string {
	switch c := call.GetRequest().(type) {
	case *v1.Call_Filter:
		return c.Filter.GetEvent().String()
	case *v1.Call_Deliver:
		return "Deliver"
	case *v1.Call_Directory:
		m := c.Directory.ProtoReflect()
		return title(string(m.WhichOneof(m.Descriptor().Oneofs().ByName("op")).Name()))
	case *v1.Call_Storage:
		m := c.Storage.ProtoReflect()
		return title(string(m.WhichOneof(m.Descriptor().Oneofs().ByName("op")).Name()))
	}
	return "?"
}

// title makes ListMailboxes of list_mailboxes.
func title(s string) string {
	var b bytes.Buffer
	for word := range bytes.SplitSeq([]byte(s), []byte("_")) {
		b.Write(bytes.ToUpper(word[:1]))
		b.Write(word[1:])
	}
	return b.String()
}

// patience of one call while a debugger is attached.
const patience = 24 * time.Hour

// Ask hands the mail to the plugin as the stages of a server would, and tells of
// each question when it is answered.
func (r *Running) Ask(ctx context.Context, m Mail, tell func(*Exchange)) (*Outcome, error) {
	if len(m.Text) == 0 {
		m.Text = Sample(m.From, m.To)
	}
	limit := r.Config.Timeout
	if limit == 0 {
		limit = filter.DefaultTimeout
	}
	if r.place.opts.Patient {
		limit = patience
	}
	ctx, cancel := context.WithTimeout(ctx, limit+time.Second)
	defer cancel()
	body, err := r.place.Body(received(m))
	if err != nil {
		return nil, err
	}
	defer body.Discard()
	q := &asking{Running: r, mail: m, body: body, tap: &tap{to: r.Instance, tell: tell}, out: &Outcome{}, limit: limit}
	switch r.Describe.GetKind() {
	case v1.Kind_KIND_FILTER:
		err = q.filter(ctx)
	case v1.Kind_KIND_DELIVER:
		q.deliver(ctx)
	case v1.Kind_KIND_DIRECTORY:
		q.directory(ctx)
	case v1.Kind_KIND_STORAGE:
		q.storage(ctx)
	case v1.Kind_KIND_ACCESS:
		err = q.access(ctx)
	default:
		err = fmt.Errorf("a plugin of kind %s cannot be tried", kindWord(r.Describe.GetKind()))
	}
	return q.out, err
}

// asking is one Ask.
type asking struct {
	*Running
	mail  Mail
	body  spool.Body
	tap   *tap
	out   *Outcome
	limit time.Duration
}

// fails notes a call without an answer.
func (q *asking) fails(err error) bool {
	if err != nil {
		q.out.Failed = true
	}
	return err != nil
}

// Body puts a message where the plugin finds it: inline if it is small, else as a
// file.
func (p *Place) Body(text []byte) (spool.Body, error) {
	w := p.spool.NewWriter(int64(len(text)))
	if _, err := w.Write(text); err != nil {
		w.Abort()
		return nil, err
	}
	return w.Finish()
}

const clientIP = "192.0.2.1"

// received puts the server's own field on top, as each message has it.
func received(m Mail) []byte {
	field := message.Received{
		Helo: "mx.hanks.example", IP: netip.MustParseAddr(clientIP), By: hostname, With: "ESMTPS", ID: "dev.1", Date: time.Now(),
		TLSVersion: "TLS1.3",
	}
	return append(field.Field(), m.Text...)
}

// client is who brought the mail.
func client() *v1.Client {
	return &v1.Client{
		Ip: clientIP, Port: 50124, Hello: "mx.hanks.example", Rdns: "mx.hanks.example", Tls: true, TlsVersion: "TLS1.3",
		TlsCipher: "TLS_AES_128_GCM_SHA256", Listener: "receive.smtp.dev", Protocol: "ESMTPS",
	}
}

// recipients of the mail, each with a mailbox.
func (m *Mail) recipients() []*v1.Recipient {
	var out []*v1.Recipient
	for i, to := range m.To {
		out = append(out, &v1.Recipient{Address: to, Index: int32(i), Account: to})
	}
	return out
}

// Sample is a mail with an attachment.
func Sample(from string, to []string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: Tom <%s>\r\nTo: ", from)
	for i, a := range to {
		if i > 0 {
			b.WriteString(",\r\n ")
		}
		fmt.Fprintf(&b, "<%s>", a)
	}
	fmt.Fprintf(&b, "\r\nSubject: You have got mail\r\nDate: %s\r\nMessage-ID: %s\r\n", message.FormatDate(time.Now()), message.NewMessageID("hanks.example"))
	b.WriteString("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"books\"\r\n\r\n" +
		"--books\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello Meg,\r\n\r\nthe list of books is attached.\r\n\r\nTom\r\n" +
		"--books\r\nContent-Type: text/csv; charset=utf-8\r\nContent-Disposition: attachment; filename=\"books.csv\"\r\n\r\n" +
		"title,author\r\nPride and Prejudice,Jane Austen\r\n--books--\r\n")
	return b.Bytes()
}
