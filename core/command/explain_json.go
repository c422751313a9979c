package command

import (
	"strings"

	"github.com/stagecoach-mta/stagecoach/core/admin"
	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/deliver/nexthop"
	"github.com/stagecoach-mta/stagecoach/core/filter"
	"github.com/stagecoach-mta/stagecoach/core/pipeline"
)

// explained is an Explanation for machines: its names stay, whatever those within
// the core are called.
type explained struct {
	Listener   string               `json:"listener,omitempty"`
	Filters    []explainedStep      `json:"filters,omitempty"`
	Refused    string               `json:"refused,omitempty"`
	Tags       map[string]any       `json:"tags,omitempty"`
	Recipients []explainedRecipient `json:"recipients"`
}

type explainedStep struct {
	Filter  string   `json:"filter"`
	Verdict string   `json:"verdict"`
	Edits   []string `json:"edits,omitempty"`
	Score   float64  `json:"score,omitempty"`
	Note    string   `json:"note,omitempty"`
	Failed  string   `json:"failed,omitempty"`
}

type explainedRecipient struct {
	Address        string           `json:"address"`
	AliasOf        string           `json:"alias_of,omitempty"`
	Account        string           `json:"account,omitempty"`
	Problem        string           `json:"problem,omitempty"`
	Route          string           `json:"route,omitempty"`
	Tried          []explainedRoute `json:"tried,omitempty"`
	Deliver        string           `json:"deliver,omitempty"`
	Redirect       []string         `json:"redirect,omitempty"`
	Copy           []string         `json:"copy,omitempty"`
	Held           bool             `json:"held,omitempty"`
	Reason         string           `json:"reason,omitempty"`
	Reject         *explainedReply  `json:"reject,omitempty"`
	Discard        bool             `json:"discard,omitempty"`
	Filters        []explainedStep  `json:"filters,omitempty"`
	NextHop        *explainedHop    `json:"next_hop,omitempty"`
	NextHopProblem string           `json:"next_hop_problem,omitempty"`
}

type explainedRoute struct {
	Route string `json:"route"`
	Taken bool   `json:"taken"`
	When  string `json:"when,omitempty"`
}

type explainedReply struct {
	Code     int    `json:"code"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text"`
}

type explainedHop struct {
	Source string          `json:"source"`
	TLS    string          `json:"tls"`
	Hosts  []explainedHost `json:"hosts"`
}

type explainedHost struct {
	Name       string   `json:"name"`
	Preference int      `json:"preference"`
	Port       int      `json:"port,omitempty"`
	Addresses  []string `json:"addresses,omitempty"`
	Skipped    string   `json:"skipped,omitempty"`
}

func forMachines(m pipeline.Mail, x *pipeline.Explanation) explained {
	out := explained{Listener: m.Listener, Filters: stepsForMachines(x.Filters), Refused: x.Refused, Recipients: []explainedRecipient{}}
	for name, t := range x.Tags {
		if out.Tags == nil {
			out.Tags = map[string]any{}
		}
		out.Tags[name] = admin.TagValue(t)
	}
	for _, r := range x.Recipients {
		e := explainedRecipient{
			Address: r.Address, AliasOf: r.AliasOf, Account: r.Account, Problem: r.Problem, Route: r.Route, Deliver: r.Deliver,
			Redirect: r.Redirect, Copy: r.Copy, Held: r.Held, Reason: r.Reason, Reject: replyForMachines(r.Reject), Discard: r.Discard,
			Filters: stepsForMachines(r.Filters), NextHop: hopForMachines(r.NextHop), NextHopProblem: r.NextHopProblem,
		}
		for _, t := range r.Tried {
			e.Tried = append(e.Tried, explainedRoute{t.Route, t.Taken, t.When})
		}
		out.Recipients = append(out.Recipients, e)
	}
	return out
}

func stepsForMachines(steps []filter.Step) (out []explainedStep) {
	for _, s := range steps {
		out = append(out, explainedStep{s.Filter, strings.ToLower(s.Verdict.String()), s.Edits, s.Score, s.Note, s.Failed})
	}
	return out
}

func replyForMachines(r *config.Reply) *explainedReply {
	if r == nil {
		return nil
	}
	return &explainedReply{r.Code, r.Enhanced, r.Text}
}

func hopForMachines(p *nexthop.Plan) *explainedHop {
	if p == nil {
		return nil
	}
	out := &explainedHop{Source: string(p.Source), TLS: string(p.TLS), Hosts: []explainedHost{}}
	for _, h := range p.Hosts {
		e := explainedHost{Name: h.Name, Preference: int(h.Pref), Port: h.Port, Skipped: h.Skip}
		for _, a := range h.Addrs {
			e.Addresses = append(e.Addresses, a.String())
		}
		out.Hosts = append(out.Hosts, e)
	}
	return out
}
