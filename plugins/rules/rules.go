// Package rules is a filter of an operator's own conditions: each rule is an HCL
// expression over the mail, and what becomes of the mail where it is true.
package rules

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/address"
	"github.com/stagecoach-mta/stagecoach/sdk/expression"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Rule is one condition and what follows.
type Rule struct {
	Name       string            `hcl:"name,label"`
	When       string            `hcl:"when" semantic:"condition" doc:"The condition, as a route's when: over sender, recipient, client, message and tags." example:"tags.spf == \"fail\" && !client.authenticated"`
	At         string            `hcl:"at,optional" doc:"The moment: the earlier, the less is known and the less it costs. client is known from connect on (client.hello from hello), sender from mail, recipient from rcpt, message at message." oneof:"connect,hello,mail,rcpt,message"`
	Reject     string            `hcl:"reject,optional" doc:"Refuse it for good, with this text. It may begin with the reply's codes: 550 5.7.1 is what it gets without." example:"550 5.7.1 We take no mail from there"`
	Defer      string            `hcl:"defer,optional" doc:"Refuse it for now, with this text; without codes of its own it gets 451 4.7.1."`
	Disconnect string            `hcl:"disconnect,optional" doc:"Say 421 and this text, and end the connection."`
	Hold       string            `hcl:"hold,optional" doc:"Keep it in the queue until an operator releases it; this is the reason."`
	Discard    bool              `hcl:"discard,optional" doc:"Take it, deliver it to nobody and tell nobody."`
	Accept     bool              `hcl:"accept,optional" doc:"No later rule is looked at."`
	Score      float64           `hcl:"score,optional" doc:"Added to tags.score."`
	Tags       map[string]string `hcl:"tags,optional" doc:"Tags that are set." example:"{ stream = \"bulk\" }"`
	Headers    map[string]string `hcl:"headers,optional" doc:"Fields added at the top of the header; at message alone." example:"{ \"X-Spam-Flag\" = \"YES\" }"`
	Copy       []string          `hcl:"copy,optional" semantic:"address" doc:"Addresses that get the mail too; at message alone."`
	Delay      time.Duration     `hcl:"delay,optional" doc:"How long the client waits for the reply, 60s at most." example:"\"5s\""`
}

// Config of a filter "rules" block.
type Config struct {
	Rules []Rule `hcl:"rule,block" doc:"A rule, with a name for the trace and the metrics. They are looked at in their order; the first that refuses, holds, discards or accepts is the last."`
}

func defaults() Config { return Config{Rules: []Rule{{At: "message"}}} }

var moments = map[string]v1.FilterEvent{
	"connect": v1.FilterEvent_CONNECT, "hello": v1.FilterEvent_HELLO, "mail": v1.FilterEvent_MAIL,
	"rcpt": v1.FilterEvent_RCPT, "message": v1.FilterEvent_MESSAGE,
}

// knownFrom says at which moment a variable has a value.
var knownFrom = map[string]string{"client.hello": "hello", "sender": "mail", "recipient": "rcpt", "message": "message"}

var order = []string{"connect", "hello", "mail", "rcpt", "message"}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Rules) == 0 {
		errs = append(errs, schema.Errorf(nil, `there is no rule: add one, as rule "strangers" { when = tags.spf == "fail" … }`))
	}
	names := map[string]bool{}
	for i := range c.Rules {
		r := &c.Rules[i]
		if names[r.Name] {
			errs = append(errs, schema.Errorf(schema.Path("rule", i), "there are two rules %q", r.Name))
		}
		names[r.Name] = true
		for attribute, text := range r.mistakes() {
			errs = append(errs, schema.Errorf(schema.Path("rule", i, attribute), "%s", text))
		}
	}
	return errors.Join(errs...)
}

// mistakes by attribute.
func (r *Rule) mistakes() map[string]string {
	out := map[string]string{}
	x, err := expression.Parse(r.When)
	if err != nil {
		out["when"] = err.Error()
	} else {
		for _, what := range slices.Sorted(maps.Keys(knownFrom)) {
			from := knownFrom[what]
			if x.Uses(what) && slices.Index(order, r.At) < slices.Index(order, from) && (what != "client.hello" || !x.Uses("client.ip")) {
				out["at"] = fmt.Sprintf("%s is not known at %s: write at = %q, or a later moment", what, r.At, from)
			}
		}
	}
	last := 0
	for _, a := range []struct {
		name  string
		text  string
		class byte
	}{{"reject", r.Reject, '5'}, {"defer", r.Defer, '4'}, {"disconnect", r.Disconnect, '4'}} {
		if a.text == "" {
			continue
		}
		last++
		if text := replyMistake(a.text, a.class); text != "" {
			out[a.name] = text
		}
	}
	for _, set := range []bool{r.Hold != "", r.Discard, r.Accept} {
		if set {
			last++
		}
	}
	switch does := len(r.Tags)+len(r.Headers)+len(r.Copy) > 0 || r.Score != 0 || r.Delay != 0; {
	case last > 1:
		out["when"] = "a rule has one of reject, defer, disconnect, hold, discard and accept"
	case last == 0 && !does && out["when"] == "":
		out["when"] = "the rule does nothing: add reject, defer, hold, score, tags or another of its attributes"
	}
	for name, value := range r.Headers {
		if !fieldName(name) || strings.ContainsAny(value, "\r\n\x00") {
			out["headers"] = fmt.Sprintf("%q is no header field name, or its value has a line end", name)
		}
	}
	for name := range r.Tags {
		if !tagName.MatchString(name) {
			out["tags"] = fmt.Sprintf("%q is no tag's name: use letters, digits, _ and -", name)
		}
	}
	for _, a := range r.Copy {
		if _, err := address.Parse(a, true); err != nil {
			out["copy"] = fmt.Sprintf("%q is no mail address", a)
		}
	}
	if r.At != "message" && len(r.Headers) > 0 {
		out["headers"] = `there is no header yet: write at = "message"`
	}
	if r.At != "message" && len(r.Copy) > 0 {
		out["copy"] = `a copy needs the message: write at = "message"`
	}
	if r.Delay < 0 || r.Delay > time.Minute {
		out["delay"] = "at most 60s: clients give up when they wait longer"
	}
	return out
}

var tagName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// codes of a reply's text: "550 5.7.1 Text".
var codes = regexp.MustCompile(`^(?:([245]\d\d)(?:[ ]|$))?(?:([245]\.\d{1,3}\.\d{1,3})(?:[ ]|$))?(.*)$`)

// parseReply takes the codes off a text; 0 and "" if it has none.
func parseReply(s string) (code int, enhanced, text string) {
	m := codes.FindStringSubmatch(s)
	if m == nil {
		return 0, "", s
	}
	code, _ = strconv.Atoi(m[1])
	return code, m[2], m[3]
}

func replyMistake(s string, class byte) string {
	for _, c := range []byte(s) {
		if c < ' ' || c >= 0x7f {
			return "a reply is one line of ASCII"
		}
	}
	code, enhanced, text := parseReply(s)
	switch {
	case code != 0 && byte('0'+code/100) != class, enhanced != "" && enhanced[0] != class:
		return fmt.Sprintf("the codes of this reply begin with %c", class)
	case text == "":
		return "say in words what is wrong, behind the codes"
	}
	return ""
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

// Interest is in the moments of the rules and the fields that they read.
func (c *Config) Interest() *v1.FilterInterest {
	in := interest()
	in.Events, in.Effect, in.Body = nil, v1.FilterInterest_JUDGE, v1.FilterInterest_NONE
	fields, all := map[string]bool{}, false
	for i := range c.Rules {
		r := &c.Rules[i]
		if e := moments[r.At]; !slices.Contains(in.Events, e) {
			in.Events = append(in.Events, e)
		}
		if len(r.Headers)+len(r.Copy) > 0 {
			in.Effect = v1.FilterInterest_EDIT
		}
		x, err := expression.Parse(r.When)
		if err != nil || r.At != "message" {
			continue
		}
		for field, root := range map[string]string{"subject": "message.subject", "from": "message.from", "message-id": "message.id"} {
			if x.Uses(root) {
				fields[field] = true
			}
		}
		named, whole := x.Fields()
		for _, f := range named {
			fields[f] = true
		}
		all = all || whole
	}
	slices.Sort(in.Events)
	if len(fields) > 0 || all {
		in.Body = v1.FilterInterest_HEADER
	}
	if !all {
		in.HeaderNames = slices.Sorted(maps.Keys(fields))
	}
	return in
}

func interest() *v1.FilterInterest {
	return &v1.FilterInterest{
		Events: slices.Sorted(maps.Values(moments)), Body: v1.FilterInterest_HEADER, Effect: v1.FilterInterest_EDIT,
	}
}

// Plugin describes the rules filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "rules", Version: "1.0.0", Summary: "reject, hold, tag, score and copy mail by conditions of your own",
		Config: defaults(), Interest: interest(),
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			return newFilter(in.Config.(*Config), in.Metrics)
		},
	}
}
