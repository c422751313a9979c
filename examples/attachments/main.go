// Command attachments is a Stagecoach filter that refuses mail by the names of
// its attachments. It is a plugin as an outsider writes one: it knows the SDK and
// nothing else of Stagecoach. It looks at names, not into files, and is no
// protection from viruses.
package main

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// Config is the block: filter "attachments" "no_exe" { forbid = [".exe"] }
type Config struct {
	Forbid   []string `hcl:"forbid" doc:"Endings that no attachment's name may have, without regard to case." example:"[\".exe\", \".js\"]"`
	Decoys   []string `hcl:"decoys,optional" doc:"Endings that a name may not show before its last one: report.pdf.htm. Empty: allowed."`
	Wrappers []string `hcl:"wrappers,optional" doc:"Endings that may follow a decoy: report.pdf.gz."`
	MaxParts int      `hcl:"max_parts,optional" doc:"Mail with more MIME parts is refused: it cannot be looked through. At most 900."`
}

// Validate checks what the schema cannot say.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Forbid) == 0 {
		errs = append(errs, schema.Errorf(schema.Path("forbid"), `nothing is forbidden: write forbid = [".exe"]`))
	}
	for name, list := range map[string][]string{"forbid": c.Forbid, "decoys": c.Decoys, "wrappers": c.Wrappers} {
		for i, e := range list {
			if len(e) < 2 || e[0] != '.' {
				errs = append(errs, schema.Errorf(schema.Path(name, i), "an ending begins with a dot: %q", "."+strings.TrimLeft(e, "*.")))
			}
		}
	}
	// sdk/mime renders at most 1000 parts; what lies beyond is not seen.
	if c.MaxParts < 1 || c.MaxParts > 900 {
		errs = append(errs, schema.Errorf(schema.Path("max_parts"), "write a number from 1 to 900"))
	}
	return errors.Join(errs...)
}

// maxDepth of parts within parts; sdk/mime looks into 64.
const maxDepth = 50

var plugin = sdk.Plugin{
	Name: "attachments", Version: "1.0.0", Summary: "Refuses mail by the names of its attachments",
	Config: Config{
		Decoys:   []string{".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".jpg", ".jpeg", ".png", ".gif", ".txt", ".mp3", ".mp4"},
		Wrappers: []string{".zip", ".gz", ".xz", ".7z", ".asc", ".gpg", ".sig", ".p7m", ".p7s"},
		MaxParts: 500,
	},
	// The whole message once it is there, and a verdict: no edits, so this filter
	// runs beside the others.
	Interest: &v1.FilterInterest{
		Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Effect: v1.FilterInterest_JUDGE, Body: v1.FilterInterest_FULL,
	},
	Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
		return &attachments{
			Config:  in.Config.(*Config),
			refused: in.Metrics.Counter("refused_total", "Mails refused."),
		}, nil
	},
}

func main() { sdk.Serve(plugin) }

type attachments struct {
	*Config
	refused *sdk.Value
}

var _ filter.Filter = (*attachments)(nil)

// Filter is asked once per message, for many messages at a time.
func (a *attachments) Filter(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
	r, err := ev.Message.Open()
	if err != nil {
		return nil, err // no verdict: the operator's on_failure decides
	}
	defer r.Close()
	m, err := mime.Summarize(r)
	if err != nil {
		return nil, err
	}
	left := a.MaxParts
	text, name := a.look(m.Structure, 0, &left)
	if text == "" {
		return filter.Accept(), nil
	}
	a.refused.Add(1)
	// The name is the sender's: it goes into the log, not into the reply.
	return filter.Reject(550, "5.7.1", text).Note("attachment " + strconv.QuoteToASCII(name)), nil
}

// look returns why a part or one within it is refused, and its name; "" if none is.
func (a *attachments) look(p *v1.Part, depth int, left *int) (text, name string) {
	if *left--; *left < 0 || depth > maxDepth {
		return "This message has more parts than are looked through here", ""
	}
	for _, name := range mime.FileNames(p) {
		if text := a.refuse(name); text != "" {
			return text, name
		}
	}
	for _, c := range p.GetChildren() {
		if text, name := a.look(c, depth+1, left); text != "" {
			return text, name
		}
	}
	return "", ""
}

// refuse says what is wrong with a name; "" if nothing is.
func (a *attachments) refuse(name string) string {
	name = mime.PlainName(name)
	for _, e := range a.Forbid {
		if strings.HasSuffix(name, strings.ToLower(e)) {
			return "We take no attachments that end in " + e
		}
	}
	rest, last := cut(name)
	if _, shown := cut(rest); has(a.Decoys, shown) && last != shown && !has(a.Wrappers, last) {
		return "We take no attachments with two endings, one of them " + shown
	}
	return ""
}

// cut splits a name before its last dot; blanks before it only hide the ending.
func cut(name string) (rest, ending string) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return "", ""
	}
	return strings.TrimSpace(name[:i]), name[i:]
}

func has(list []string, ending string) bool {
	for _, e := range list {
		if strings.EqualFold(e, ending) {
			return true
		}
	}
	return false
}
