// Command dkimdiff is our side of the comparison with other DKIM programs: it
// signs mails with the dkimsign filter, verifies them with what authverify uses, and
// brings them to milters with the milter filter.
//
//	dkimdiff KEYS
//
// KEYS is a folder of keys as dkimsign has it; what would be in the DNS is made of
// it. Each line of the input is an object with the mail in base64, and "sign" with
// the canonical forms if it is to be signed, or "milter" with the address of one that
// adds header fields; each line of the output answers one.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/stagecoach-mta/stagecoach/plugins/dkimsign"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/dkim"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/keyring"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/message"
	"github.com/stagecoach-mta/stagecoach/plugins/milter"
	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

type question struct {
	Mail   []byte `json:"mail"`
	Sign   string `json:"sign"`
	Milter string `json:"milter"`
}

type answer struct {
	Mail    []byte   `json:"mail,omitempty"`
	Results []string `json:"results,omitempty"`
	Reasons []string `json:"reasons,omitempty"`
}

// zone answers for the keys of a folder.
type zone struct {
	dns.None
	records map[string]string
}

func (z zone) TXT(_ context.Context, name string) ([]string, error) {
	if r, ok := z.records[name]; ok {
		return []string{r}, nil
	}
	return nil, dns.ErrNotExist
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dkimdiff KEYS")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "dkimdiff:", err)
		os.Exit(1)
	}
}

func run(keys string) error {
	all, err := keyring.All(keys, "")
	if err != nil {
		return err
	}
	z := zone{records: map[string]string{}}
	for _, k := range all {
		if z.records[k.Name()], err = k.Record(); err != nil {
			return err
		}
	}
	verifier := &dkim.Verifier{Resolver: z}
	signers := map[string]filter.Filter{}
	milters := map[string]filter.Filter{}
	dir, err := os.MkdirTemp("", "dkimdiff")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	out := bufio.NewWriter(os.Stdout)
	for in.Scan() {
		var q question
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			return err
		}
		var a answer
		switch {
		case q.Sign != "":
			a.Mail, err = sign(signers, keys, q)
		case q.Milter != "":
			a.Mail, err = ask(milters, dir, q)
		default:
			a, err = verify(verifier, q.Mail)
		}
		if err != nil {
			return err
		}
		if err := json.NewEncoder(out).Encode(a); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return in.Err()
}

func verify(v *dkim.Verifier, text []byte) (answer, error) {
	m, err := message.Read(bytes.NewReader(text))
	if err != nil {
		return answer{}, err
	}
	verdicts, err := v.Verify(context.Background(), m)
	if err != nil {
		return answer{}, err
	}
	var a answer
	for _, r := range verdicts {
		a.Results = append(a.Results, string(r.Result))
		a.Reasons = append(a.Reasons, r.Reason)
	}
	return a, nil
}

func sign(signers map[string]filter.Filter, keys string, q question) ([]byte, error) {
	f := signers[q.Sign]
	if f == nil {
		p := dkimsign.Plugin()
		c := p.Config.(dkimsign.Config)
		c.Keys, c.Canonicalization = keys, q.Sign
		var err error
		if f, err = p.Filter(context.Background(), &sdk.Instance{Config: &c, Metrics: &sdk.Metrics{}}); err != nil {
			return nil, err
		}
		signers[q.Sign] = f
	}
	return edited(f, &v1.Envelope{}, q.Mail)
}

// ask brings a mail to a milter, and returns it with the fields that this one adds.
func ask(milters map[string]filter.Filter, dir string, q question) ([]byte, error) {
	f := milters[q.Milter]
	if f == nil {
		p := milter.Plugin()
		c := p.Config.(milter.Config)
		c.Address = q.Milter
		var err error
		if f, err = p.Filter(context.Background(), &sdk.Instance{Config: &c, Metrics: &sdk.Metrics{}, DataDir: dir, Hostname: "mx.ryan.example"}); err != nil {
			return nil, err
		}
		milters[q.Milter] = f
	}
	return edited(f, &v1.Envelope{
		QueueId: "1", Sender: "tom@hanks.example", Client: &v1.Client{Ip: "192.0.2.7", Hello: "mail.hanks.example"},
		Recipients: []*v1.Recipient{{Address: "meg@ryan.example"}},
	}, q.Mail)
}

// edited is a mail below the fields that a filter puts on top of it.
func edited(f filter.Filter, envelope *v1.Envelope, text []byte) ([]byte, error) {
	m, err := message.Read(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	var header mail.Header
	for _, field := range m.Header {
		header = append(header, &v1.HeaderField{Name: field.Name, Value: field.Value()})
	}
	v, err := f.Filter(context.Background(), &filter.Event{
		Kind: v1.FilterEvent_MESSAGE, Message: mail.FromBytes(text), Header: header, Envelope: envelope,
	})
	if err != nil {
		return nil, err
	}
	if a := v.Reply().GetVerdict().GetAction(); a > v1.Verdict_ACCEPT {
		return nil, fmt.Errorf("the filter answers %s", v.Reply().GetVerdict())
	}
	for _, e := range v.Reply().GetEdits() {
		if field := e.GetInsertHeader().GetField(); field != nil {
			text = append([]byte(field.GetName()+":"+string(field.GetValue())+"\r\n"), text...)
		}
	}
	return text, nil
}
