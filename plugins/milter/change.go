package milter

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/plugins/milter/protocol"
	"github.com/stagecoach-mta/stagecoach/sdk/address"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// change makes a verdict with edits of what the milter changes. A milter's changes
// follow upon each other, the contract's edits count from the message as it was:
// so they are done on a list of the fields first, and the difference is told.
func (f *Filter) change(ev *filter.Event, changes []protocol.Change) (*filter.Verdict, error) {
	v := filter.Accept()
	if i := slices.IndexFunc(changes, func(c protocol.Change) bool { return c.Code == protocol.Quarantine }); i >= 0 {
		v = filter.Hold(printable(changes[i].Reason))
	}
	fields := newFields(ev, f.ownReceived(ev))
	var body []byte
	newBody := false
	var added []*v1.Recipient
	deleted := map[int32]bool{}
	for _, c := range changes {
		var err error
		switch c.Code {
		case protocol.AddHeader, protocol.InsHeader, protocol.ChgHeader:
			err = fields.change(c)
		case protocol.ReplBody:
			body, newBody = append(body, c.Body...), true
		case protocol.ChgFrom:
			err = sender(v, ev.Envelope, c)
		case protocol.AddRcpt, protocol.AddRcptPar:
			var r *v1.Recipient
			if r, err = recipient(c); err == nil && !slices.ContainsFunc(added, func(a *v1.Recipient) bool { return strings.EqualFold(a.GetAddress(), r.GetAddress()) }) {
				added = append(added, r)
			}
		case protocol.DelRcpt:
			gone := bare(c.Address)
			added = slices.DeleteFunc(added, func(r *v1.Recipient) bool { return strings.EqualFold(r.GetAddress(), gone) })
			for _, r := range ev.Envelope.GetRecipients() {
				if strings.EqualFold(r.GetAddress(), gone) {
					deleted[r.GetIndex()] = true
				}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("what the milter wants to change cannot be: %w", err)
		}
	}
	for _, r := range ev.Envelope.GetRecipients() {
		// One that was taken out and added again has new parameters.
		if deleted[r.GetIndex()] {
			v.DeleteRecipient(r.GetIndex())
		}
	}
	for _, r := range added {
		// Whom the mail goes to already is not added, as in Sendmail.
		if !slices.ContainsFunc(ev.Envelope.GetRecipients(), func(x *v1.Recipient) bool {
			return !deleted[x.GetIndex()] && strings.EqualFold(x.GetAddress(), r.GetAddress())
		}) {
			v.AddRecipientDSN(r)
		}
	}
	fields.tell(v)
	if newBody {
		if err := f.bodies.Replace(v, body); err != nil {
			return nil, fmt.Errorf("write the new body: %w", err)
		}
	}
	return v, nil
}

// field of the header that the milter works on.
type field struct {
	name, value string
	index       int // among those of its name in the message, from 1; 0: new
	hidden      bool
	changed     bool
	deleted     bool
}

type fields struct{ list []*field }

func newFields(ev *filter.Event, hidden int) *fields {
	out := &fields{}
	count := map[string]int{}
	for i, h := range ev.Header {
		key := strings.ToLower(h.GetName())
		count[key]++
		out.list = append(out.list, &field{name: h.GetName(), index: count[key], hidden: i == hidden})
	}
	return out
}

// change does one change as Sendmail does: a field that was deleted still counts.
func (f *fields) change(c protocol.Change) error {
	if !fieldName(c.Name) {
		return fmt.Errorf("%q is no name of a header field", c.Name)
	}
	value := clean(c.Value)
	switch c.Code {
	case protocol.AddHeader:
		f.list = append(f.list, &field{name: c.Name, value: value})
	case protocol.InsHeader:
		f.list = slices.Insert(f.list, f.place(int64(c.Index)), &field{name: c.Name, value: value})
	case protocol.ChgHeader:
		x := f.find(c.Name, max(int64(c.Index), 1))
		switch {
		case x == nil && c.Value == "":
		case x == nil:
			f.list = append(f.list, &field{name: c.Name, value: value})
		case c.Value == "":
			x.deleted = true
		default:
			x.deleted, x.changed, x.value = false, true, value
		}
	}
	return nil
}

// place counts as Sendmail does: 0 is the top, 1 below this server's own trace
// field, which the milter does not see.
func (f *fields) place(index int64) int {
	if index == 0 {
		return 0
	}
	seen := int64(1)
	for i, x := range f.list {
		switch {
		case x.hidden:
		case seen == index:
			return i
		default:
			seen++
		}
	}
	return len(f.list)
}

func (f *fields) find(name string, index int64) *field {
	for _, x := range f.list {
		if !x.hidden && strings.EqualFold(x.name, name) {
			if index--; index == 0 {
				return x
			}
		}
	}
	return nil
}

// tell makes edits of the difference.
func (f *fields) tell(v *filter.Verdict) {
	position := 0
	for _, x := range f.list {
		switch {
		case x.index == 0:
			if !x.deleted {
				v.InsertHeader(position, x.name, x.value)
			}
			continue
		case x.deleted:
			v.DeleteHeader(x.name, x.index)
		case x.changed:
			v.ReplaceHeader(x.name, x.index, x.value)
		}
		position++
	}
}

// clean folds with CRLF; a line that would be a field of its own is continued.
func clean(value string) string {
	value = strings.ReplaceAll(strings.ReplaceAll(value, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(strings.TrimRight(value, "\n"), "\n")
	out := lines[:1]
	for _, l := range lines[1:] {
		switch {
		case strings.Trim(l, " \t") == "":
			continue // an empty line would end the header
		case l[0] != ' ' && l[0] != '\t':
			l = "\t" + l
		}
		out = append(out, l)
	}
	return strings.Join(out, "\r\n")
}

// fieldName is RFC 5322's ftext.
func fieldName(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return s != ""
}

// bare is an address without brackets.
func bare(s string) string {
	s = strings.TrimSpace(s)
	if inner, ok := strings.CutPrefix(s, "<"); ok {
		s = strings.TrimSuffix(inner, ">")
	}
	return s
}

func recipient(c protocol.Change) (*v1.Recipient, error) {
	r := &v1.Recipient{Address: bare(c.Address)}
	if _, err := address.Parse(r.GetAddress(), true); err != nil {
		return nil, fmt.Errorf("the recipient %q is no address: %w", c.Address, err)
	}
	for arg := range strings.FieldsSeq(c.Args) {
		name, value, _ := strings.Cut(arg, "=")
		switch strings.ToUpper(name) {
		case "NOTIFY":
			r.Notify = strings.Split(strings.ToUpper(value), ",")
		case "ORCPT":
			kind, original, _ := strings.Cut(value, ";")
			r.OriginalRecipient = kind + ";" + unxtext(original)
		default:
			return nil, fmt.Errorf("the recipient %q has the parameter %q: NOTIFY and ORCPT are known", c.Address, arg)
		}
	}
	return r, nil
}

// sender keeps the parameters that the milter does not name.
func sender(v *filter.Verdict, e *v1.Envelope, c protocol.Change) error {
	to := bare(c.Address)
	if to != "" {
		if _, err := address.Parse(to, true); err != nil {
			return fmt.Errorf("the sender %q is no address: %w", c.Address, err)
		}
	}
	if strings.TrimSpace(c.Args) == "" {
		v.SetSender(to, nil)
		return nil
	}
	p := proto.CloneOf(e.GetParameters())
	if p == nil {
		p = &v1.MailParameters{}
	}
	for arg := range strings.FieldsSeq(c.Args) {
		name, value, _ := strings.Cut(arg, "=")
		switch strings.ToUpper(name) {
		case "SIZE":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 {
				return fmt.Errorf("the sender %q has the parameter %q, which is no size", c.Address, arg)
			}
			p.DeclaredSize = n
		case "BODY":
			p.Body = strings.ToUpper(value)
		case "SMTPUTF8":
			p.Smtputf8 = true
		case "REQUIRETLS":
			p.RequireTls = true
		case "RET":
			p.DsnReturn = strings.ToUpper(value)
		case "ENVID":
			p.EnvelopeId = unxtext(value)
		case "AUTH":
			p.Auth = unxtext(value)
		default:
			return fmt.Errorf("the sender %q has the parameter %q: SIZE, BODY, SMTPUTF8, REQUIRETLS, RET, ENVID and AUTH are known", c.Address, arg)
		}
	}
	v.SetSender(to, p)
	return nil
}

// bodyOf reads what stands behind the header of so many fields: after the empty
// line, or from the line on that ended the header by being no field.
func bodyOf(message io.Reader, fields int) (io.Reader, error) {
	r := bufio.NewReaderSize(message, 64<<10)
	for left := fields; ; {
		next, err := r.Peek(1)
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the message: %w", err)
		}
		switch c := next[0]; {
		case c == '\r' || c == '\n':
			// The empty line, unless a bare CR begins a line that is no field.
			two, _ := r.Peek(2)
			if c == '\r' && (len(two) < 2 || two[1] != '\n') {
				return r, nil
			}
			_, err := r.ReadSlice('\n')
			return r, err
		case (c == ' ' || c == '\t') && left < fields:
		case left == 0 || c == ' ' || c == '\t':
			return r, nil
		default:
			left--
		}
		for {
			_, err := r.ReadSlice('\n')
			if err == nil {
				break
			}
			if errors.Is(err, io.EOF) {
				return r, nil
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return nil, fmt.Errorf("read the message: %w", err)
			}
		}
	}
}
