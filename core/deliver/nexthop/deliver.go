package nexthop

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/dns"
	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
)

// delivery is one call of Deliver.
type delivery struct {
	t    *Transport
	m    *Message
	tls  policy
	out  []Outcome
	open []int // recipients without an outcome
	// fail is what the open ones get if no host is left. A temporary failure
	// of one host outweighs permanent ones of others: that host may yet take
	// the mail.
	fail *Outcome
	// recodings are made once, whoever wants them.
	recodings [2]*recoding
}

// Deliver makes one attempt for all recipients and returns their outcomes in
// order. It blocks; ending ctx ends it, with what is known by then.
func (t *Transport) Deliver(ctx context.Context, m Message) []Outcome {
	d := &delivery{t: t, m: &m, out: make([]Outcome, len(m.Recipients))}
	for i, r := range m.Recipients {
		d.open = append(d.open, i)
		d.out[i].Recipient = r.Addr
	}
	if len(d.open) == 0 {
		return d.out
	}
	domain := m.Domain
	if domain == "" {
		// Neither a domain nor a literal has an @: the last one is the border
		// even behind a quoted local-part.
		addr := m.Recipients[0].Addr
		domain = addr[strings.LastIndexByte(addr, '@')+1:]
	}
	plan, err := t.plan(ctx, domain, m.NextHop)
	if err == nil {
		d.tls, err = t.policy(&m)
	}
	if err != nil {
		var re *RouteError
		errors.As(err, &re)
		d.note(decided(re.Code, re.Enhanced, re.Text))
	} else {
		d.run(ctx, plan)
	}
	for _, i := range d.open {
		addr := d.out[i].Recipient
		d.out[i] = *d.fail
		d.out[i].Recipient = addr
	}
	return d.out
}

func (d *delivery) run(ctx context.Context, plan Plan) {
	tries := 0
	for _, h := range plan.Hosts {
		if h.Skip != "" {
			if h.err != nil && dns.KindOf(h.err) == dns.Temporary {
				d.note(decided(451, smtp.EnhancedCode{4, 4, 3}, h.Skip))
			}
			continue
		}
		targets := []string{h.Name}
		if h.network != "unix" {
			targets = targets[:0]
			for _, a := range h.Addrs {
				targets = append(targets, net.JoinHostPort(a.String(), strconv.Itoa(h.Port)))
			}
		}
		for _, addr := range targets {
			if len(d.open) == 0 || tries == d.t.opts.MaxAddrs {
				return
			}
			if plan.shared() {
				if why := d.t.hosts.pass(addr, d.t.opts.Timeouts.Connect); why != "" {
					d.note(decided(451, smtp.EnhancedCode{4, 4, 1}, "Not tried, it did not answer a moment ago: "+why))
					continue
				}
			}
			tries++
			d.try(ctx, hop{
				host: h.Name, network: h.network, addr: addr, tls: d.tls.mode, verify: d.tls.verify, login: plan.Auth,
			})
			if ctx.Err() != nil {
				d.note(decided(451, smtp.EnhancedCode{4, 4, 2}, "The delivery was interrupted: "+context.Cause(ctx).Error()))
				return
			}
		}
	}
}

// note remembers a failure that another host may make good.
func (d *delivery) note(o Outcome) {
	if d.fail == nil || d.fail.Status == Failed || o.Status == Deferred {
		d.fail = &o
	}
}

// try delivers to one address, over as many connections as it takes.
func (d *delivery) try(ctx context.Context, h hop) {
	for len(d.open) > 0 {
		began := d.t.opts.Clock()
		c, fail := d.t.connect(ctx, h, d.m.Options.RequireTLS)
		if fail != nil {
			d.t.opts.Log.Debug().Str("id", d.m.QueueID).Str("host", h.host).Str("addr", h.addr).
				Str("reason", fail.Text).Msg("next hop not reached")
			d.note(*fail)
			if fail.Enhanced == (smtp.EnhancedCode{4, 4, 1}) && ctx.Err() == nil && d.t.opts.Clock().Sub(began) >= silentAfter {
				d.t.hosts.failed(h.addr, fail.Text)
			}
			return
		}
		d.t.hosts.answered(h.addr)
		again := d.transact(ctx, c)
		if c.Usable() && c.mails < d.t.mailLimit(c) {
			d.t.pool.put(c)
		} else {
			d.t.pool.quit(c)
		}
		if !again {
			return
		}
	}
}

func (t *Transport) mailLimit(c *conn) int {
	limit := t.opts.MaxMailsPerConn
	if n := c.MaxMails(); n > 0 && n < limit {
		limit = n
	}
	return limit
}

// transact sends the mail over one connection, in rounds if the server takes
// only so many recipients at once. It returns true if another connection to the
// same address should go on.
func (d *delivery) transact(ctx context.Context, c *conn) (again bool) {
	// away are recipients whose address this server cannot take: the others are not
	// to wait for another host.
	var away []int
	defer func() { d.open = append(d.open, away...) }()
	for len(d.open) > 0 {
		if c.mails >= d.t.mailLimit(c) {
			return true
		}
		size := d.t.opts.MaxRecipients
		if n := c.MaxRecipients(); n > 0 && n < size {
			size = n
		}
		batch := d.open[:min(size, len(d.open))]
		later := append([]int(nil), d.open[len(batch):]...)
		tx := client.Transaction{
			From: d.m.From, Options: d.m.Options, Priority: d.m.Priority, DeliverBy: d.m.DeliverBy, Body: d.m.Body, Size: d.m.Size,
		}
		for _, i := range batch {
			tx.Recipients = append(tx.Recipients, d.m.Recipients[i])
		}
		res, err := d.send(ctx, c, &tx)
		if sent(res) {
			c.mails++
		}
		v := d.judge(c, batch, res, err)
		if err == nil && c.Usable() {
			away, v.elsewhere = append(away, v.elsewhere...), nil
		}
		d.open = append(v.elsewhere, later...)
		if len(v.overflow) > 0 && v.taken > 0 && c.Usable() {
			d.open = append(v.overflow, d.open...)
		} else {
			for _, i := range v.overflow {
				d.set(c, i, tooManyOutcome(res.Recipients[indexOf(batch, i)].Reply))
			}
		}
		switch {
		case v.stale:
			return true
		case len(v.elsewhere) > 0:
			return false // the next host
		case !c.Usable():
			// The server said 421 after the last reply, or the mail could not
			// be read: the rest needs a new connection.
			return len(d.open) > 0
		}
		c.reused = false // it lives
	}
	return false
}

// sent tells whether anything of the transaction left us.
func sent(res *client.Result) bool {
	return slices.ContainsFunc(res.Recipients, func(r client.RcptResult) bool { return r.Phase != client.PhaseLocal })
}

// verdict sorts a batch.
type verdict struct {
	taken     int
	elsewhere []int // another connection or host may do
	overflow  []int // too many recipients for one transaction
	stale     bool  // a kept connection had died while it waited
}

func (d *delivery) judge(c *conn, batch []int, res *client.Result, err error) verdict {
	var v verdict
	var hostFailure *Outcome
	var ce *client.Error
	errors.As(err, &ce)
	for k, i := range batch {
		r := res.Recipients[k]
		switch {
		case r.Delivered():
			v.taken++
			d.set(c, i, fromReply(r))
		case r.Reply.Code == 0 && ce != nil && ce.Phase == client.PhaseLocal:
			d.set(c, i, decided(451, smtp.EnhancedCode{4, 3, 0}, ce.Err.Error()))
		case r.Reply.Code == 0 && res.EndOfData:
			o := decided(451, smtp.EnhancedCode{4, 4, 2},
				"The connection broke after the whole message was sent; it may have been delivered: "+reason(err))
			o.Ambiguous = true
			d.set(c, i, o)
		case r.Reply.Code == 0:
			v.elsewhere = append(v.elsewhere, i)
			o := decided(451, smtp.EnhancedCode{4, 4, 2}, "The connection broke: "+reason(err))
			hostFailure = &o
		case r.Missing != "", r.Reply.Code == 421 && r.Phase != client.PhaseDone:
			// What this server lacks another may have; 421 speaks of the
			// server, not of the recipient.
			v.elsewhere = append(v.elsewhere, i)
			o := fromReply(r)
			hostFailure = &o
		case r.Phase == client.PhaseRcpt && tooMany(r.Reply):
			v.overflow = append(v.overflow, i)
		default:
			d.set(c, i, fromReply(r))
		}
	}
	v.stale = c.reused && !c.Usable() && !res.EndOfData && len(v.elsewhere) == len(batch)
	if hostFailure != nil && !v.stale {
		c.describe(hostFailure)
		d.note(*hostFailure)
	}
	return v
}

func indexOf(list []int, x int) int {
	for k, i := range list {
		if i == x {
			return k
		}
	}
	return -1
}

func reason(err error) string {
	if err == nil {
		return "no reply"
	}
	return err.Error()
}

func (d *delivery) set(c *conn, i int, o Outcome) {
	c.describe(&o)
	o.KnowsDeliverBy = o.KnowsDeliverBy || d.t.opts.LMTP // it delivers at once
	o.Recipient = d.m.Recipients[i].Addr
	d.out[i] = o
}

func (c *conn) describe(o *Outcome) {
	o.RemoteMTA, o.RemoteAddr, o.TLS = c.hop.host, c.hop.addr, c.tls
	_, o.DSN = c.Extension("DSN")
	_, o.KnowsDeliverBy = c.Extension("DELIVERBY")
}

// tooMany: RFC 5321 section 4.5.3.1.10 has 452, and 552 from old servers, for
// "too many recipients". With an enhanced code only X.5.3 means that; others
// speak of the mailbox (X.2.2) or the server's disk (X.3.1).
func tooMany(r client.Reply) bool {
	if r.Code != 452 && r.Code != 552 {
		return false
	}
	return r.Enhanced == smtp.EnhancedCode{} || r.Enhanced[1] == 5 && r.Enhanced[2] == 3
}

func tooManyOutcome(r client.Reply) Outcome {
	o := decided(452, smtp.EnhancedCode{4, 5, 3}, oneLine(r.Text))
	o.Diagnostic = r.String()
	return o
}

// decided is an outcome made here.
func decided(code int, ec smtp.EnhancedCode, text string) Outcome {
	o := Outcome{Status: Deferred, Code: code, Enhanced: ec, Text: text}
	if code >= 500 {
		o.Status = Failed
	}
	return o
}

func fromReply(r client.RcptResult) Outcome {
	o := decided(r.Reply.Code, r.Reply.Enhanced, oneLine(r.Reply.Text))
	if o.Enhanced == (smtp.EnhancedCode{}) {
		o.Enhanced = smtp.EnhancedCode{r.Reply.Class(), 0, 0}
	}
	if r.Delivered() {
		o.Status = Delivered
	}
	if r.Phase != client.PhaseLocal {
		o.Diagnostic = r.Reply.String()
	}
	return o
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }
