package sdktest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Filter starts a filter and returns a function that asks it. Of the call only
// what the filter's interest names arrives; a call for an event that it did not
// name, or a message above its max_size, fails the test.
func Filter(t testing.TB, p sdk.Plugin, config any, opts ...Option) func(*v1.FilterCall) (*v1.FilterReply, error) {
	t.Helper()
	in := Start(t, p, config, opts...)
	return func(call *v1.FilterCall) (*v1.FilterReply, error) {
		t.Helper()
		want := in.Interest
		if !slices.Contains(want.GetEvents(), call.GetEvent()) {
			t.Fatalf("the filter did not ask for %s", call.GetEvent())
		}
		if size := call.GetMessage().GetSize(); want.GetMaxSize() > 0 && size > want.GetMaxSize() {
			t.Fatalf("the filter wants no message above %d octets; this one has %d", want.GetMaxSize(), size)
		}
		sent := &v1.FilterCall{
			Event: call.GetEvent(), Envelope: call.GetEnvelope(), Recipient: call.GetRecipient(), Results: call.GetResults(),
			IdempotencyKey: call.GetIdempotencyKey(), Authenticated: call.GetAuthenticated(), Observations: call.GetObservations(),
		}
		if want.GetBody() == v1.FilterInterest_FULL {
			sent.Message = call.GetMessage()
		}
		if want.GetBody() != v1.FilterInterest_NONE {
			for _, f := range call.GetHeader() {
				if len(want.GetHeaderNames()) == 0 || slices.Contains(want.GetHeaderNames(), strings.ToLower(f.GetName())) {
					sent.Header = append(sent.Header, f)
				}
			}
		}
		r, err := in.Caller.Call(Context(t), &v1.Call{Request: &v1.Call_Filter{Filter: sent}})
		return r.GetFilter(), err
	}
}

// Message makes a MESSAGE event of a text (line ends as in Go source) from Tom
// to Meg; above mail.InlineLimit it is a file, as from the core.
func Message(t testing.TB, text string) *v1.FilterCall {
	t.Helper()
	text = crlf(text)
	m := mail.FromBytes([]byte(text))
	if len(text) > mail.InlineLimit {
		path := filepath.Join(t.TempDir(), "message")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m = mail.FromFile(path, int64(len(text)))
	}
	call := before(v1.FilterEvent_MESSAGE, meg)
	call.Message, call.Header, call.Envelope.Size = m.Ref(), header(text), int64(len(text))
	return call
}

// header splits the fields of a header with CRLF line ends (RFC 5322 section 2.2).
func header(text string) []*v1.HeaderField {
	var out []*v1.HeaderField
	head, _, _ := strings.Cut(text, "\r\n\r\n")
	for _, line := range strings.Split(head, "\r\n") {
		if len(out) > 0 && strings.IndexAny(line, " \t") == 0 {
			last := out[len(out)-1]
			last.Value = append(last.Value, "\r\n"+line...)
		} else if name, value, ok := strings.Cut(line, ":"); ok {
			out = append(out, &v1.HeaderField{Name: name, Value: []byte(value)})
		}
	}
	return out
}
