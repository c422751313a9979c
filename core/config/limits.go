package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/stagecoach-mta/stagecoach/sdk/expression"
)

// Rate is so many in that time; the zero value is no limit.
type Rate struct {
	N   int
	Per time.Duration
}

// Destination limits what goes to one domain.
type Destination struct {
	// Domain, or ".ryan.example" for each name below it.
	Domain      string
	Connections int // deliveries at once; 0: Queue.PerDomain
	Rate        Rate
	Range       hcl.Range
}

// Source limits what one sender gets delivered.
type Source struct {
	// Match is an address or a login name; a domain: its senders together; or
	// "*": each sender that has no block, by itself.
	Match      string
	Deliveries int // at once; 0: no limit
	Rate       Rate
	Range      hcl.Range
}

const rateRemedy = `Write a number and a time: "100/1m", "500/1h", "20000/1d".`

// parseRate reads "100/1m"; "100/m" is the same.
func parseRate(s string) (Rate, error) {
	number, per, ok := strings.Cut(strings.TrimSpace(s), "/")
	if !ok {
		return Rate{}, errors.New("has no time")
	}
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil {
		return Rate{}, errors.New("does not begin with a whole number")
	}
	per = strings.TrimSpace(per)
	if durationUnits[per] > 0 {
		per = "1" + per
	}
	d, err := parseDuration(per)
	switch {
	case err != nil:
		return Rate{}, fmt.Errorf("has a time that %w", err)
	case n <= 0:
		return Rate{}, errors.New("would never deliver anything")
	case d <= 0:
		return Rate{}, errors.New("is no limit: its time is 0")
	case d < time.Duration(n):
		return Rate{}, errors.New("is no limit: that many never go out")
	}
	return Rate{n, d}, nil
}

func (r *reader) rate(name string, into *Rate) {
	parsed(r, name, into, parseRate, rateRemedy)
}

// labelled calls each for the nested blocks of that type, which have one label.
func (r *reader) labelled(name, example string, each func(label string, at hcl.Range, b *hclsyntax.Block)) {
	r.blocks = append(r.blocks, name)
	first := map[string]hcl.Range{}
	for _, b := range r.body.Blocks {
		if b.Type != name {
			continue
		}
		if len(b.Labels) != 1 {
			r.l.err(header(b), fmt.Sprintf("The block %s has one label, not %d", name, len(b.Labels)), "Write: "+example)
			continue
		}
		label := strings.ToLower(b.Labels[0])
		if old, again := first[label]; again {
			d := r.l.err(header(b), fmt.Sprintf("A second block %s; the first is at %s", blockName(b), expression.At(old)), "Keep one of the two.")
			d.Also = place(old)
			continue
		}
		first[label] = header(b)
		each(label, b.LabelRanges[0], b)
	}
}

// destinations of a deliver block; hosts says that all goes one way.
func (l *loader) destinations(r *reader, hosts bool) (out []*Destination) {
	r.labelled("destination", `destination "ryan.example" { connections = 5 }`, func(label string, at hcl.Range, b *hclsyntax.Block) {
		d := &Destination{Domain: label, Range: header(b)}
		inner := l.reader(b)
		inner.integer("connections", &d.Connections, 1, 100000)
		inner.rate("rate", &d.Rate)
		inner.done()
		switch {
		case parseDomain(label) != nil:
			l.err(at, fmt.Sprintf("%s is no domain name", quote(label)), `Write "ryan.example", or ".ryan.example" for each name below it.`)
			return
		case hosts:
			l.err(header(b), "With hosts all mail of this block goes one way: a limit of one destination holds for nothing",
				"Write rate and max_connections in the deliver block itself, or make another block for this destination.")
			return
		case d.Connections == 0 && d.Rate.N == 0 && !inner.set("rate") && !inner.set("connections"):
			l.warn(header(b), "This block limits nothing", `Add: connections = 5, or rate = "100/1m"`)
		}
		out = append(out, d)
	})
	return out
}

func (l *loader) sources(r *reader) (out []*Source) {
	r.labelled("source", `source "*" { rate = "500/1h" }`, func(label string, at hcl.Range, b *hclsyntax.Block) {
		s := &Source{Match: label, Range: header(b)}
		inner := l.reader(b)
		inner.integer("deliveries", &s.Deliveries, 1, 100000)
		inner.rate("rate", &s.Rate)
		inner.done()
		switch {
		case label == "" || strings.ContainsAny(label, " \t<>") || strings.Contains(label, "*") && label != "*":
			l.err(at, fmt.Sprintf("%s is no sender", quote(label)),
				`Write an address or a login name, "hanks.example" for all of its senders together, or "*" for each of all others.`)
			return
		case s.Deliveries == 0 && s.Rate.N == 0 && !inner.set("rate") && !inner.set("deliveries"):
			l.warn(header(b), "This block limits nothing", `Add: rate = "500/1h", or deliveries = 10`)
		}
		out = append(out, s)
	})
	return out
}

// Limit is what holds for one destination of the block.
func (n *NextHop) Limit(domain string) Destination {
	limit := Destination{Rate: n.Rate}
	best := -1
	for _, d := range n.Destinations {
		if d.Domain != domain && (d.Domain[0] != '.' || !strings.HasSuffix(domain, d.Domain)) || len(d.Domain) <= best {
			continue
		}
		best = len(d.Domain)
		limit = *d
		if limit.Rate.N == 0 {
			limit.Rate = n.Rate
		}
	}
	return limit
}

// Source finds the block for a mail of that reverse-path, sent by that login
// name ("" for none). key is what its mails are counted by; limit is nil if none
// holds. Notices, which have no reverse-path, have no limit.
func (q *Queue) Source(sender, user string) (key string, limit *Source) {
	sender, user = strings.ToLower(sender), strings.ToLower(user)
	key = user
	if key == "" {
		key = sender
	}
	if sender == "" && user == "" {
		return key, nil
	}
	domain := sender[strings.LastIndexByte(sender, '@')+1:]
	best := 0
	for _, s := range q.Sources {
		rank := 0
		switch s.Match {
		case "":
		case user:
			rank = 4
		case sender:
			rank = 3
		case domain:
			rank = 2
		case "*":
			rank = 1
		}
		if rank > best {
			best, limit = rank, s
		}
	}
	if best > 1 {
		key = limit.Match
	}
	return key, limit
}

// SourceLimit is what holds for a key of Source; nil: nothing.
func (q *Queue) SourceLimit(key string) *Source {
	var all *Source
	for _, s := range q.Sources {
		switch s.Match {
		case key:
			return s
		case "*":
			all = s
		}
	}
	if key == "" {
		return nil
	}
	return all
}
