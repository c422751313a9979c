// Package attachments is a filter that looks at what hangs on a mail: names, what the
// files really are, and what lies inside archives.
package attachments

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	"github.com/stagecoach-mta/stagecoach/sdk/mime"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"

	"github.com/stagecoach-mta/stagecoach/plugins/attachments/content"
)

// Config of a filter "attachments" block.
type Config struct {
	Names       []string    `hcl:"names,optional" doc:"Patterns of names that are refused, of attachments and of files in archives, without regard to case; * is any number of characters, ? one." example:"[\"*.exe\", \"*.js\"]"`
	Contents    []string    `hcl:"contents,optional" doc:"What is refused by its content, whatever it is called: executable (programs of Windows, Linux and macOS, Java classes, scripts with #!, shortcuts, help files), macro (office documents with macros), encrypted (archives and documents with a password), archive, disk_image, unreadable (archives of a kind that is not opened here, broken ones, and those beyond the limits)." oneof:"executable,macro,encrypted,archive,disk_image,unreadable"`
	Action      string      `hcl:"action,optional" doc:"What becomes of the mail: reject (550 5.7.1), hold (until an operator releases it), or tag alone." oneof:"reject,hold,tag"`
	MaxDepth    int         `hcl:"max_depth,optional" doc:"How many archives within one another are opened."`
	MaxFiles    int         `hcl:"max_files,optional" doc:"How many files of a mail's archives are looked at."`
	MaxUnpacked schema.Size `hcl:"max_unpacked,optional" doc:"How many octets of a mail's archives are unpacked; as much memory is needed at most, for two mails at a time."`
}

// windows are what a double click runs.
var windows = []string{
	"*.exe", "*.scr", "*.pif", "*.com", "*.cpl", "*.msi", "*.msp", "*.bat", "*.cmd", "*.vbs", "*.vbe", "*.js", "*.jse", "*.wsf", "*.wsh",
	"*.ps1", "*.hta", "*.lnk", "*.reg", "*.jar", "*.chm", "*.xll", "*.scf",
}

func defaults() Config {
	return Config{Names: windows, Contents: []string{"executable"}, Action: "reject", MaxDepth: 4, MaxFiles: 1000, MaxUnpacked: 32 << 20}
}

// Validate points at the attribute that is wrong.
func (c *Config) Validate() error {
	var errs []error
	for i, p := range c.Names {
		if _, err := path.Match(p, ""); err != nil || p == "" || strings.Contains(p, "/") {
			errs = append(errs, schema.Errorf(schema.Path("names", i), `%q is no pattern: write *.exe`, p))
		}
	}
	if len(c.Names) == 0 && len(c.Contents) == 0 && c.Action != "tag" {
		errs = append(errs, schema.Errorf(schema.Path("action"), `nothing is refused: name something in names or contents, or write action = "tag"`))
	}
	for name, n := range map[string]int64{"max_depth": int64(c.MaxDepth), "max_files": int64(c.MaxFiles), "max_unpacked": int64(c.MaxUnpacked)} {
		if n < 1 {
			errs = append(errs, schema.Errorf(schema.Path(name), "it must be above zero"))
		}
	}
	return errors.Join(errs...)
}

// Filter is one instance.
type Filter struct {
	*Config
	room    chan struct{} // for mails whose archives are open
	refused *sdk.Value
}

var _ filter.Filter = (*Filter)(nil)

// Filter looks at all attachments; the first that is refused decides.
func (f *Filter) Filter(ctx context.Context, ev *filter.Event) (*filter.Verdict, error) {
	found, err := f.look(ctx, ev.Message)
	if err != nil {
		return nil, err // no verdict: the operator's on_failure decides
	}
	var names []string
	contents := map[string]bool{}
	refused, why := "", ""
	for _, x := range found {
		if x.Depth == 0 && x.Name != "" && len(names) < maxTagged {
			names = append(names, x.Name)
		}
		for _, c := range x.Contents {
			contents[c] = true
		}
		if why == "" {
			refused, why = x.Name, f.refuses(x)
		}
	}
	v := filter.Accept()
	if why != "" {
		f.refused.Add(1)
		// The name is the sender's: it goes into the log, not into the reply.
		note := "attachment " + strconv.QuoteToASCII(refused) + ": " + why
		switch f.Action {
		case "reject":
			v = filter.Reject(550, "5.7.1", "We take no attachments of this kind: "+why).Note(note)
		case "hold":
			v = filter.Hold(note).Note(note)
		default:
			v.Note(note)
		}
		v.Tag("attachment_refused", why)
	}
	if len(names) > 0 {
		v.TagList("attachments", names...)
	}
	if len(contents) > 0 {
		v.TagList("attachment_contents", slices.Sorted(maps.Keys(contents))...)
	}
	return v, nil
}

// maxTagged is how many names a tag tells.
const maxTagged = 100

// refuses says why a file is; "" if it is not.
func (f *Filter) refuses(x content.File) string {
	name := mime.PlainName(x.Name)
	for _, p := range f.Names {
		if ok, err := path.Match(strings.ToLower(p), strings.ReplaceAll(name, "/", "_")); ok && err == nil {
			return "a name like " + p
		}
	}
	for _, c := range x.Contents {
		if slices.Contains(f.Contents, c) {
			return map[string]string{
				"executable": "a program", "macro": "a document with macros", "encrypted": "a file with a password", "archive": "an archive",
				"disk_image": "a disk image", "unreadable": "an archive that cannot be looked into",
			}[c]
		}
	}
	return ""
}

// look finds the files of a mail.
func (f *Filter) look(ctx context.Context, m *mail.Message) ([]content.File, error) {
	r, err := m.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	sum, err := mime.Summarize(r)
	if err != nil {
		return nil, err
	}
	l := content.Limits{Depth: f.MaxDepth, Files: f.MaxFiles, Unpacked: int64(f.MaxUnpacked)}
	var found []content.File
	entered := false
	for part := range leaves(sum.Structure) {
		names := mime.FileNames(part)
		if len(names) == 0 && part.GetType() == "text" {
			continue
		}
		if !entered {
			select {
			case f.room <- struct{}{}:
				defer func() { <-f.room }()
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			entered = true
		}
		raw := &v1.Part{Encoding: part.GetEncoding()} // octets, whatever type it says
		body := mime.Decode(raw, io.NewSectionReader(r, part.GetBodyOffset(), part.GetSize()))
		files, err := content.Look(ctx, strings.Join(names[:min(1, len(names))], ""), body, &l)
		if err != nil {
			return nil, fmt.Errorf("look at an attachment: %w", err)
		}
		for _, other := range names[min(1, len(names)):] {
			files = append(files, content.File{Name: other})
		}
		found = append(found, files...)
	}
	return found, nil
}

// leaves are the parts that hold something; those of a forwarded mail among them.
func leaves(p *v1.Part) func(yield func(*v1.Part) bool) {
	return func(yield func(*v1.Part) bool) { walk(p, 0, yield) }
}

func walk(p *v1.Part, depth int, yield func(*v1.Part) bool) bool {
	if len(p.GetChildren()) == 0 {
		return yield(p)
	}
	for _, c := range p.GetChildren() {
		if depth < 64 && !walk(c, depth+1, yield) {
			return false
		}
	}
	return true
}

// Plugin describes the attachments filter.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name: "attachments", Version: "1.0.0", Summary: "refuse attachments by name, by content, and inside archives",
		Config: defaults(),
		Interest: &v1.FilterInterest{
			Events: []v1.FilterEvent{v1.FilterEvent_MESSAGE}, Body: v1.FilterInterest_FULL, Effect: v1.FilterInterest_JUDGE,
		},
		Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
			return &Filter{
				Config: in.Config.(*Config), room: make(chan struct{}, 2),
				refused: in.Metrics.Counter("refused_total", "Mails with an attachment that is not taken."),
			}, nil
		},
	}
}
