package pluginbench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/core/message"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	"github.com/stagecoach-mta/stagecoach/core/tryout"
	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	sdkstorage "github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// large is the message that shows what sending by reference is worth.
const large = 1 << 20

const account = "meg@ryan.example"

// callTimeout of one call.
const callTimeout = 30 * time.Second

// measuring builds the calls of one run.
type measuring struct {
	place *tryout.Place
	r     *tryout.Running
	y     *yardstick
	// n makes keys that were never seen.
	n      atomic.Int64
	bodies []spool.Body
}

// subjectsOf are the calls that the kind gets most. done removes the messages.
func subjectsOf(ctx context.Context, place *tryout.Place, r *tryout.Running, y *yardstick, size int) (list []*subject, done func(), err error) {
	m := &measuring{place: place, r: r, y: y}
	done = func() {
		for _, b := range m.bodies {
			b.Discard()
		}
	}
	switch r.Describe.GetKind() {
	case v1.Kind_KIND_FILTER:
		list, err = m.filter(size)
	case v1.Kind_KIND_DELIVER:
		list, err = m.deliver(size)
	case v1.Kind_KIND_DIRECTORY:
		list = m.directory()
	case v1.Kind_KIND_STORAGE:
		list, err = m.storage(ctx, size)
	case v1.Kind_KIND_ACCESS:
		list = m.access()
	default:
		err = fmt.Errorf("a plugin of kind %s cannot be measured", r.Describe.GetKind())
	}
	if err != nil {
		done()
	}
	return list, done, err
}

// text is a message of that size.
func text(size int) []byte {
	b := []byte(conform.Ordinary().Text)
	const line = "A line of a longer story, which goes on and on until it is enough.\r\n"
	if left := size - len(b); left > 0 {
		b = append(b, bytes.Repeat([]byte(line), left/len(line)+1)[:left]...)
	}
	return b
}

// sized is a size as people write it.
func sized(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// how a message of that size comes to a plugin.
func how(n int) string {
	if n > mail.InlineLimit {
		return sized(n) + " by reference"
	}
	return sized(n) + " inline"
}

// body keeps a message for the run.
func (m *measuring) body(b []byte) (spool.Body, error) {
	body, err := m.place.Body(b)
	if err == nil {
		m.bodies = append(m.bodies, body)
	}
	return body, err
}

// inline is a call with the message in it, as the yardstick gets it.
func inline(call *v1.Call, text []byte) *v1.Call {
	call = proto.CloneOf(call)
	ref := &v1.MessageRef{Size: int64(len(text)), Where: &v1.MessageRef_Inline{Inline: text}}
	switch c := call.GetRequest().(type) {
	case *v1.Call_Filter:
		c.Filter.Message = ref
	case *v1.Call_Deliver:
		c.Deliver.Message = ref
	case *v1.Call_Storage:
		c.Storage.GetAppend().Messages[0].Message = ref
	}
	return call
}

// calls is a subject whose every call is made by next.
func (m *measuring) calls(name string, next func() *v1.Call, bareName string, bare *v1.Call) *subject {
	return &subject{
		name: name, bareName: bareName,
		plugin: func(ctx context.Context) (func() error, error) {
			return func() error {
				ctx, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				_, err := m.r.Instance.Call(ctx, next())
				return err
			}, nil
		},
		bare: func(ctx context.Context) (func() error, error) {
			call, err := m.y.caller(ctx)
			return func() error { return call(bare) }, err
		},
	}
}

const bareStream = "bare gRPC stream"

// filter is asked about the message, or at the first event that it wants.
func (m *measuring) filter(size int) ([]*subject, error) {
	interest := m.r.Instance.Interest()
	event := v1.FilterEvent_MESSAGE
	if !slices.Contains(interest.GetEvents(), event) {
		if len(interest.GetEvents()) == 0 {
			return nil, errNothing
		}
		event = slices.Min(interest.GetEvents())
	}
	seen := event == v1.FilterEvent_MESSAGE || event == v1.FilterEvent_ROUTE || event == v1.FilterEvent_PRE_DELIVERY
	sizes := []int{size}
	if seen && interest.GetBody() == v1.FilterInterest_FULL && size != large {
		sizes = append(sizes, large)
	}
	var list []*subject
	for _, n := range sizes {
		if most := interest.GetMaxSize(); most > 0 && int64(n) > most {
			continue
		}
		call := &v1.FilterCall{Event: event, Envelope: conform.Envelope(int64(n)), Recipient: -1}
		name, bareName := event.String(), bareStream
		raw := text(n)
		full := false
		switch {
		case event == v1.FilterEvent_OBSERVE:
			call.Observations = []*v1.Observation{{Sequence: 1, AtMs: time.Now().UnixMilli(), What: v1.Observation_QUEUED, Envelope: call.GetEnvelope(), Recipient: -1}}
			call.Envelope = nil
		case event == v1.FilterEvent_RCPT:
			call.Recipient = 0
		case seen && interest.GetBody() == v1.FilterInterest_NONE:
			name += ", envelope only"
		case seen:
			body, err := m.body(raw)
			if err != nil {
				return nil, err
			}
			if call.Header, err = (message.Editor{}).Fields(body, interest.GetHeaderNames()); err != nil {
				return nil, err
			}
			name += ", header only"
			if full = interest.GetBody() == v1.FilterInterest_FULL; full {
				call.Message = body.Message().Ref()
				name, bareName = event.String()+", "+how(n), bareName+", "+sized(n)+" inline"
			}
		}
		yard := &v1.Call{DeadlineMs: callTimeout.Milliseconds(), Request: &v1.Call_Filter{Filter: proto.CloneOf(call)}}
		if full {
			yard = inline(yard, raw)
		}
		list = append(list, m.calls(name, func() *v1.Call {
			// A key that comes again would be answered from memory.
			one := &v1.FilterCall{
				Event: call.Event, Envelope: call.Envelope, Recipient: call.Recipient, Header: call.Header, Message: call.Message, Observations: call.Observations,
			}
			if event == v1.FilterEvent_OBSERVE {
				o := call.Observations[0]
				one.Observations = []*v1.Observation{{Sequence: uint64(m.n.Add(1)), AtMs: o.AtMs, What: o.What, Envelope: o.Envelope, Recipient: -1}}
			} else {
				one.IdempotencyKey = m.key()
			}
			return &v1.Call{Request: &v1.Call_Filter{Filter: one}}
		}, bareName, yard))
	}
	return list, nil
}

// mostOf such messages may be left behind in a turn.
func mostOf(size int) int { return max(1, leaves/(turns+1)/max(size, 1)) }

func (m *measuring) key() string { return fmt.Sprintf("bench-%d", m.n.Add(1)) }

// deliver hands messages over, each another one.
func (m *measuring) deliver(size int) ([]*subject, error) {
	var list []*subject
	for _, n := range slices.Compact([]int{size, large}) {
		raw := text(n)
		body, err := m.body(raw)
		if err != nil {
			return nil, err
		}
		next := func() *v1.Call {
			env := conform.Envelope(int64(n))
			env.QueueId = m.key()
			return &v1.Call{Request: &v1.Call_Deliver{Deliver: &v1.DeliverCall{Envelope: env, Message: body.Message().Ref(), IdempotencyKey: env.QueueId}}}
		}
		s := m.calls("Deliver, "+how(n), next, bareStream+", "+sized(n)+" inline", inline(next(), raw))
		s.most = mostOf(n)
		list = append(list, s)
	}
	return list, nil
}

func (m *measuring) directory() []*subject {
	call := &v1.Call{Request: &v1.Call_Directory{Directory: &v1.DirectoryCall{
		Op: &v1.DirectoryCall_Resolve{Resolve: &v1.ResolveRequest{Address: account}},
	}}}
	return []*subject{m.calls("Resolve", func() *v1.Call { return proto.CloneOf(call) }, bareStream, call)}
}

// storage appends to an INBOX and fetches from it.
func (m *measuring) storage(ctx context.Context, size int) ([]*subject, error) {
	acc, err := sdkstorage.NewClient(m.r.Instance).Open(ctx, account)
	if err != nil {
		return nil, err
	}
	boxes, err := acc.List(ctx, &v1.ListMailboxesRequest{Name: "INBOX"})
	if err != nil || len(boxes.GetMailboxes()) == 0 {
		return nil, fmt.Errorf("the storage has no INBOX for %s: %w", account, err)
	}
	box := boxes.GetMailboxes()[0].GetId()
	op := func(c *v1.StorageCall) *v1.Call {
		c.Account = account
		return &v1.Call{Request: &v1.Call_Storage{Storage: c}}
	}
	appended := func(ref *v1.MessageRef) *v1.Call {
		return op(&v1.StorageCall{Op: &v1.StorageCall_Append{Append: &v1.AppendRequest{
			MailboxId: box, Messages: []*v1.AppendRequest_Message{{Message: ref}},
		}}})
	}
	// One to fetch, in any case.
	first, err := acc.Append(ctx, appended(mail.FromBytes(text(min(size, mail.InlineLimit))).Ref()).GetStorage().GetAppend())
	if err != nil {
		return nil, err
	}
	fetch := op(&v1.StorageCall{Op: &v1.StorageCall_Fetch{Fetch: &v1.FetchRequest{
		MailboxId: box, Uids: []*v1.UIDRange{{First: first.GetUids()[0], Last: first.GetUids()[0]}}, Summary: true, Message: true,
	}}})
	reading := m.calls("Fetch of one message", nil, bareStream, fetch)
	reading.plugin = func(ctx context.Context) (func() error, error) {
		return func() error {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			return m.r.Instance.Stream(ctx, proto.CloneOf(fetch), func(*v1.Reply) error { return nil })
		}, nil
	}
	list := []*subject{reading}
	for _, n := range slices.Compact([]int{size, large}) {
		raw := text(n)
		ref := mail.FromBytes(raw).Ref()
		if n > mail.InlineLimit {
			path := filepath.Join(m.place.Upload(m.r.Config.Ref), "bench-"+fmt.Sprint(n))
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				return nil, err
			}
			ref = mail.FromFile(path, int64(n)).Ref()
		}
		s := m.calls("Append, "+how(n), func() *v1.Call { return appended(ref) },
			bareStream+", "+sized(n)+" inline", inline(appended(ref), raw))
		s.most = mostOf(n)
		list = append(list, s)
	}
	return list, nil
}

// access is how long a client waits for the first line.
func (m *measuring) access() []*subject {
	knock := func(addr string) func(context.Context) (func() error, error) {
		return func(ctx context.Context) (func() error, error) {
			return func() error {
				d := net.Dialer{Timeout: callTimeout}
				c, err := d.DialContext(ctx, "tcp", addr)
				if err != nil {
					return err
				}
				defer c.Close()
				// A reset in place of a goodbye: no port of ours waits for it.
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.SetDeadline(time.Now().Add(callTimeout))
				_, err = io.ReadFull(c, make([]byte, 1))
				return err
			}, nil
		}
	}
	var list []*subject
	for n, addr := range m.r.Instance.Info().Listeners {
		if m.r.Config.Listen[n].ImplicitTLS {
			continue
		}
		list = append(list, &subject{
			name: "connection to greeting", bareName: "bare TCP greeting", plugin: knock(addr), bare: knock(m.y.tcp),
		})
	}
	return list
}
