// Package headers is a filter that requires, removes, sets and adds header
// fields. It reads no body and decides nothing by content.
package headers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config of a filter "headers" block.
type Config struct {
	Require []string          `hcl:"require,optional" doc:"Names of fields without which a message is rejected with 550 5.6.0." example:"[\"From\", \"Date\"]"`
	Remove  []string          `hcl:"remove,optional" doc:"Names of fields that are taken out, however often they stand there." example:"[\"X-Internal-Note\"]"`
	Set     map[string]string `hcl:"set,optional" doc:"Fields that replace all of their name." example:"{ \"X-Site\" = \"hanks\" }"`
	Add     map[string]string `hcl:"add,optional" doc:"Fields that are added at the top, beside any of their name." example:"{ \"X-Seen-By\" = \"mx\" }"`
}

// Validate points at the attribute with a name that no field can have, or a
// value that would end its field.
func (c *Config) Validate() error {
	for _, l := range []struct {
		attribute string
		names     []string
	}{{"require", c.Require}, {"remove", c.Remove}, {"set", slices.Collect(maps.Keys(c.Set))}, {"add", slices.Collect(maps.Keys(c.Add))}} {
		for _, n := range l.names {
			if !fieldName(n) {
				return schema.Errorf(schema.Path(l.attribute), "%q is no header field name: use printable ASCII without space and colon", n)
			}
		}
	}
	for attribute, m := range map[string]map[string]string{"set": c.Set, "add": c.Add} {
		for n, v := range m {
			if strings.ContainsAny(v, "\r\n\x00") {
				return schema.Errorf(schema.Path(attribute), "the value of %q has a line end: write it on one line", n)
			}
		}
	}
	return nil
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

// Interest is narrowed to what the configuration looks at.
func (c *Config) Interest() *v1.FilterInterest {
	in := interest(v1.FilterInterest_EDIT)
	if len(c.Remove)+len(c.Set)+len(c.Add) == 0 {
		in.Effect = v1.FilterInterest_JUDGE
	}
	for _, n := range c.Require {
		in.HeaderNames = append(in.HeaderNames, strings.ToLower(n))
	}
	if len(in.HeaderNames) == 0 {
		in.Body = v1.FilterInterest_NONE
	}
	return in
}

func interest(effect v1.FilterInterest_Effect) *v1.FilterInterest {
	return &v1.FilterInterest{
		Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE, v1.FilterEvent_ROUTE, v1.FilterEvent_PRE_DELIVERY},
		Body:   v1.FilterInterest_HEADER, Effect: effect,
	}
}

// Filter is one instance.
type Filter struct{ Config }

var _ filter.Filter = (*Filter)(nil)

// Filter rejects what lacks a required field, else edits.
func (f *Filter) Filter(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
	for _, n := range f.Require {
		if !ev.Header.Has(n) {
			return filter.Reject(550, "5.6.0", fmt.Sprintf("The message has no %s field", n)), nil
		}
	}
	v := filter.Accept()
	for _, n := range f.Remove {
		v.DeleteHeader(n, 0)
	}
	for _, n := range slices.Sorted(maps.Keys(f.Set)) {
		v.DeleteHeader(n, 0)
		v.InsertHeader(0, n, f.Set[n])
	}
	for _, n := range slices.Sorted(maps.Keys(f.Add)) {
		v.InsertHeader(0, n, f.Add[n])
	}
	return v, nil
}

// Plugin describes the headers filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "headers", Version: "1.0.0", Summary: "require, remove, set and add header fields",
		Config: Config{}, Interest: interest(v1.FilterInterest_EDIT),
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			return &Filter{Config: *in.Config.(*Config)}, nil
		},
	}
}
