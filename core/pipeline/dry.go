package pipeline

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/deliver/nexthop"
	"github.com/stagecoach-mta/stagecoach/core/directory"
	"github.com/stagecoach-mta/stagecoach/core/dispatch"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/core/message"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/route"
	"github.com/stagecoach-mta/stagecoach/core/smtp/server"
	"github.com/stagecoach-mta/stagecoach/core/spool"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Dry answers what would become of a mail. It runs the configuration's
// directories and filters in processes of its own, with empty data folders, and
// changes nothing: no queue, no storage, no listener, no connection to a peer.
type Dry struct {
	p    *Pipeline
	cfg  *config.Config
	dir  string
	plan *dispatch.Plan
	ways map[string]*deliver.NextHop
}

// OpenDry starts what is asked.
func OpenDry(ctx context.Context, cfg *config.Config, o Options) (*Dry, error) {
	d := &Dry{p: &Pipeline{Options: o}, cfg: cfg}
	if err := d.open(ctx); err != nil {
		_ = d.Close() // what could not be started is the error to tell
		return nil, err
	}
	return d, nil
}

func (d *Dry) open(ctx context.Context) (err error) {
	cfg, o := d.cfg, d.p.Options
	if d.dir, err = os.MkdirTemp("", "stagecoach-dry-"); err != nil {
		return err
	}
	d.p.dataDir = d.dir
	if d.p.host, err = host.New(host.Options{
		RunDir: filepath.Join(d.dir, "run"), Executable: o.Executable, Hostname: cfg.Hostname, Log: o.Log, CoreVersion: o.Version,
	}); err != nil {
		return err
	}
	if d.p.spool, err = spool.OpenDir(vfs.Default, filepath.Join(d.dir, "spool")); err != nil {
		return err
	}
	var specs []host.Spec
	for _, in := range cfg.Instances {
		if in.Kind != v1.Kind_KIND_DIRECTORY && in.Kind != v1.Kind_KIND_FILTER {
			continue
		}
		s := Spec(in)
		s.SpoolDirs = []string{filepath.Join(d.dir, "spool")}
		if in.Describe.GetNeeds().GetDataDir() {
			s.DataDir = filepath.Join(d.dir, in.Ref)
		}
		specs = append(specs, s)
	}
	change, err := d.p.host.Provision(ctx, specs)
	if err != nil {
		return err
	}
	change.Commit()
	if d.ways, err = wayOut(cfg, o.Log); err != nil {
		return err
	}
	d.plan = &dispatch.Plan{
		Routes: route.NewTable(cfg.Routes), Directories: d.p.set(cfg.ByKind(v1.Kind_KIND_DIRECTORY)), Editing: d.p.editing(),
	}
	return nil
}

// Close ends the processes and removes the folder.
func (d *Dry) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var err error
	if d.p.host != nil {
		err = d.p.host.Close(ctx)
	}
	for _, w := range d.ways {
		_ = w.Close()
	}
	if d.dir != "" {
		_ = os.RemoveAll(d.dir)
	}
	return err
}

// Mail is what is asked about.
type Mail struct {
	From     string
	To       []string
	Client   *v1.Client
	Tags     map[string]*v1.Tag
	Message  []byte
	Received time.Time
	// Listener whose filters are asked: a receive block's reference; empty:
	// none.
	Listener string
	// LookUp asks the DNS where a next hop would be.
	LookUp bool
}

// Explanation is the answer.
type Explanation struct {
	// Filters asked at reception, and what they said together.
	Filters []filter.Step
	// Refused is the reply that the client would have got.
	Refused    string
	Tags       map[string]*v1.Tag
	Recipients []RecipientExplained
}

// RecipientExplained is the answer for one recipient, alias targets included.
type RecipientExplained struct {
	Address string
	// AliasOf is the address that led here.
	AliasOf  string
	Account  string
	Problem  string
	Route    string
	Tried    []route.Tried
	Deliver  string
	Redirect []string
	Copy     []string
	Held     bool
	Reason   string
	Reject   *config.Reply
	Discard  bool
	// Filters asked on the way out.
	Filters []filter.Step
	// NextHop is where it would go, and under which TLS policy.
	NextHop *nexthop.Plan
	// NextHopProblem is why there is none.
	NextHopProblem string
}

// Explain goes through receive, route and deliver and stops before anything is
// done.
func (d *Dry) Explain(ctx context.Context, m Mail) (*Explanation, error) {
	body := spool.FromBytes(m.Message)
	env := &v1.Envelope{
		Transaction: "explain", Sender: m.From, Client: m.Client, Tags: m.Tags, ReceivedMs: m.Received.UnixMilli(),
		Size: int64(len(m.Message)), Parameters: &v1.MailParameters{},
	}
	x := &Explanation{Recipients: []RecipientExplained{}}
	var spooled spool.Body = body
	listener := d.listener(m.Listener)
	for i, to := range m.To {
		r := &v1.Recipient{Address: to}
		if listener != nil {
			ip, _ := netip.ParseAddr(m.Client.GetIp())
			var err error
			if r, err = d.p.policy(d.cfg, listener).Accepts(ctx, m.Client.GetUser(), ip, to); err != nil {
				x.Recipients = append(x.Recipients, RecipientExplained{Address: to, Problem: replyText(err)})
				continue
			}
		}
		r.Index = int32(i)
		env.Recipients = append(env.Recipients, r)
	}
	if r := listener; r != nil && len(env.GetRecipients()) > 0 {
		chain := d.p.chain(r.Filters)
		for _, event := range []v1.FilterEvent{v1.FilterEvent_CONNECT, v1.FilterEvent_HELLO, v1.FilterEvent_MAIL, v1.FilterEvent_ENVELOPE, v1.FilterEvent_MESSAGE} {
			q := filter.Question{Event: event, Envelope: env, Recipient: -1, Key: "explain"}
			if event == v1.FilterEvent_MESSAGE {
				q.Body = spooled
			}
			out, err := chain.Run(ctx, d.p.editing(), q)
			if err != nil {
				return nil, err
			}
			x.Filters = append(x.Filters, out.Trace...)
			env = out.Envelope
			if out.Body != nil {
				spooled = out.Body
			}
			if a := out.Verdict.GetAction(); a != v1.Verdict_ACCEPT && a != v1.Verdict_HOLD {
				rep := out.Verdict.GetReply()
				x.Refused = fmt.Sprintf("%s by %s: %d %s %s", a, out.By, rep.GetCode(), rep.GetEnhanced(), rep.GetText())
			}
		}
	}
	x.Tags = env.GetTags()
	q := &queue.Envelope{
		Received: m.Received, Sender: env.GetSender(), Client: m.Client, Tags: env.GetTags(), Size: spooled.Size(),
		Parameters: &v1.MailParameters{},
	}
	if h, err := message.ReadHeader(spooled); err == nil {
		q.MessageID, q.From, q.Subject = h.Get("Message-Id"), h.Get("From"), h.Get("Subject")
	}
	for _, r := range env.GetRecipients() {
		if err := d.recipient(ctx, x, q, spooled, r.GetAddress(), m.LookUp); err != nil {
			return nil, err
		}
	}
	return x, nil
}

func (d *Dry) listener(ref string) *config.Receive {
	for _, r := range d.cfg.Receives {
		if r.Ref == ref {
			return r
		}
	}
	return nil
}

// replyText is an SMTP reply in one line.
func replyText(err error) string {
	r := server.ReplyOf(err)
	e := r.Enhanced
	return fmt.Sprintf("%d %d.%d.%d %s", r.Code, e[0], e[1], e[2], strings.Join(r.Lines, " "))
}

// recipient follows one address, through its alias if it is one.
func (d *Dry) recipient(ctx context.Context, x *Explanation, q *queue.Envelope, body spool.Body, addr string, lookUp bool) error {
	targets, first, err := d.plan.Directories.Expand(ctx, addr)
	if err != nil || first.GetResult() == v1.ResolveResponse_NO_SUCH_USER || first.GetResult() == v1.ResolveResponse_DISABLED {
		problem := "550 5.1.1 no such user here"
		if first.GetResult() == v1.ResolveResponse_DISABLED {
			problem = "550 5.2.1 mailbox disabled"
		}
		if err != nil {
			problem = err.Error()
		}
		x.Recipients = append(x.Recipients, RecipientExplained{Address: addr, Problem: problem})
		return nil
	}
	for _, t := range targets {
		r := RecipientExplained{Address: t.Address, Account: t.Account}
		if t.Address != addr {
			r.AliasOf = addr
		}
		if err := d.decide(ctx, &r, q, body, t, lookUp); err != nil {
			return err
		}
		x.Recipients = append(x.Recipients, r)
	}
	return nil
}

func (d *Dry) decide(ctx context.Context, r *RecipientExplained, q *queue.Envelope, body spool.Body, t directory.Target, lookUp bool) error {
	to := &queue.Recipient{Address: t.Address, Account: t.Account, Detail: t.Detail, Parent: -1}
	env := dispatch.Env(ctx, q, to, d.plan)
	if d.plan.Routes.NeedsHeader() {
		fields, err := d.plan.Editing.Fields(body, nil)
		if err != nil {
			return err
		}
		env.Message.Headers = dispatch.HeaderMap(fields)
	}
	dec, err := d.plan.Routes.Decide(env)
	if err != nil {
		r.Problem = err.Error()
		return nil
	}
	r.Route, r.Tried, r.Redirect, r.Held, r.Reason = dec.Route, dec.Tried, dec.Redirect, dec.Held, dec.Reason
	r.Reject, r.Discard = dec.Reject, dec.Discard
	for _, c := range dec.Copy {
		r.Copy = append(r.Copy, c.Address)
	}
	if dec.NoRoute {
		r.Problem = "550 5.4.4 no route to this recipient"
	}
	if dec.Deliver == nil {
		return nil
	}
	r.Deliver = dec.Deliver.Ref
	if err := d.outFilters(ctx, r, q, body, to, dec); err != nil {
		return err
	}
	if way := d.ways[dec.Deliver.Ref]; way != nil && lookUp {
		domain := ""
		if way.ByDomain {
			domain = way.Destination(t.Address)
		}
		plan, err := way.Plan(ctx, domain)
		if err != nil {
			r.NextHopProblem = err.Error()
			return nil
		}
		r.NextHop = &plan
	}
	return nil
}

// outFilters asks the route's and the deliver's filters.
func (d *Dry) outFilters(ctx context.Context, r *RecipientExplained, q *queue.Envelope, body spool.Body, to *queue.Recipient, dec *route.Decision) error {
	work := &deliver.Job{Envelope: q, Recipients: []*queue.Recipient{to}, Body: body, Key: "explain"}
	for _, b := range d.cfg.Routes {
		if b.Name != dec.Route || len(b.Filters) == 0 {
			continue
		}
		out, err := d.p.chain(b.Filters).Run(ctx, d.p.editing(), filter.Question{Event: v1.FilterEvent_ROUTE, Envelope: work.Contract(), Recipient: -1, Body: body, Key: work.Key})
		if err != nil {
			return err
		}
		r.Filters = append(r.Filters, out.Trace...)
	}
	if len(dec.Deliver.Filters) == 0 {
		return nil
	}
	out, err := d.p.chain(dec.Deliver.Filters).Run(ctx, d.p.editing(), filter.Question{Event: v1.FilterEvent_PRE_DELIVERY, Envelope: work.Contract(), Recipient: -1, Body: body, Key: work.Key})
	if err != nil {
		return err
	}
	filter.Unplace(out.Placements)
	r.Filters = append(r.Filters, out.Trace...)
	return nil
}
