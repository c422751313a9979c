package command

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/queue"
)

const selectionHelp = `Flags that choose mail must all hold. What they say of a recipient must hold for one and
the same, which is still waiting or held; commands that change mail change those recipients
and leave the others of a mail alone. Texts are parts of what is looked for, in any case;
in angle brackets they are the whole: --sender '<>' is mail without a reverse-path.`

// selection is the flags that choose messages.
type selection struct {
	filter          queue.Filter
	state           string
	older, newer    age
	larger, smaller octets
	tags            []string
	attempts        string
}

func (s *selection) flags(c *cobra.Command) {
	f := c.Flags()
	f.SortFlags = false
	q := &s.filter
	f.StringVar(&q.Sender, "sender", "", "only where the reverse-path contains this")
	f.StringVar(&q.Recipient, "recipient", "", "only recipients whose address contains this")
	f.StringVar(&q.Domain, "domain", "", "only recipients in this domain")
	f.StringVar(&q.Destination, "destination", "", "only what goes there: a deliver block, a domain, or both: 'deliver.smtp.internet ryan.example'")
	f.StringVar(&q.Deliver, "deliver", "", "only what goes this way: deliver.smtp.internet")
	f.StringVar(&q.Remote, "remote", "", "only where the host that answered last contains this")
	f.StringVar(&s.state, "state", "", "only recipients in this state: waiting or held")
	f.StringVar(&q.Reason, "reason", "", "only where the reason to wait, or the last answer, contains this: 'greylisted', '452 '")
	f.StringVar(&s.attempts, "attempts", "", "only recipients tried so often: 0, 3, 3- (or more), 1-5")
	f.Var(&s.older, "older", "only what was received longer ago than this: 90m, 2h, 3d")
	f.Var(&s.newer, "newer", "only what was received since: 90m, 2h, 3d")
	f.Var(&s.larger, "larger", "only messages of at least this size: 10MB")
	f.Var(&s.smaller, "smaller", "only messages of at most this size: 64KB")
	f.StringArrayVar(&s.tags, "tag", nil, "only with this tag: NAME, or NAME=VALUE (may be repeated)")
	f.StringVar(&q.Origin, "origin", "", "only what this block or stage made: receive.smtp.mx, dsn")
	f.StringVar(&q.User, "user", "", "only what was sent by a user whose name contains this")
	f.StringVar(&q.Client, "client", "", "only from clients whose address or EHLO name contains this")
	f.StringVar(&q.MessageID, "message-id", "", "only where the Message-ID contains this")
	f.StringVar(&q.Subject, "subject", "", "only where the Subject contains this")
	f.IntVar(&q.Limit, "limit", 0, "at most this many messages; 0: all")
}

// noneOf says that there is no such mail: none at all, if nothing was chosen.
func noneOf(f queue.Filter) string {
	f.Limit = 0
	if reflect.ValueOf(f).IsZero() {
		return "The queue is empty."
	}
	return "No mail in the queue matches."
}

// choose makes the filter, and complains of a flag's value before a server is asked.
func (s *selection) choose() (queue.Filter, error) {
	f := s.filter
	usage := func(text string) (queue.Filter, error) { return f, &exit{ExitUsage, errors.New(text)} }
	switch s.state {
	case "":
	case "waiting", "held":
		st := queue.Waiting
		if s.state == "held" {
			st = queue.Held
		}
		f.State = &st
	default:
		return usage("--state is waiting or held")
	}
	if f.Limit < 0 {
		return usage("--limit is how many at most; 0: all")
	}
	now := time.Now()
	if s.older > 0 {
		f.OlderThan = now.Add(-time.Duration(s.older))
	}
	if s.newer > 0 {
		f.NewerThan = now.Add(-time.Duration(s.newer))
	}
	f.MinSize, f.MaxSize = int64(s.larger), int64(s.smaller)
	for _, t := range s.tags {
		name, value, has := strings.Cut(t, "=")
		if name == "" {
			return usage("--tag is NAME or NAME=VALUE")
		}
		f.Tags = append(f.Tags, queue.TagFilter{Name: strings.TrimPrefix(name, "tags."), Value: value, HasValue: has})
	}
	if s.attempts != "" {
		span, err := parseSpan(s.attempts)
		if err != nil {
			return usage("--attempts " + err.Error())
		}
		f.Attempts = span
	}
	return f, nil
}

// parseSpan reads "3", "3-" and "1-5".
func parseSpan(s string) (*queue.Span, error) {
	low, high, span := strings.Cut(s, "-")
	min, err := strconv.Atoi(low)
	max := min
	if err == nil && span {
		if max = -1; high != "" {
			max, err = strconv.Atoi(high)
		}
	}
	if err != nil || min < 0 || high != "" && max < min {
		return nil, fmt.Errorf("is a number or a span such as 3- or 1-5, not %q", s)
	}
	return &queue.Span{Min: min, Max: max}, nil
}

// age is a duration flag that reads what the files read: 5d too.
type age time.Duration

func (a *age) String() string {
	if *a == 0 {
		return ""
	}
	return time.Duration(*a).String()
}

func (a *age) Type() string { return "duration" }

func (a *age) Set(s string) error {
	d, err := config.ParseDuration(s)
	*a = age(d)
	return err
}

// octets is a size flag that reads what the files read: 10MB.
type octets int64

func (o *octets) String() string {
	if *o == 0 {
		return ""
	}
	return bytesOf(int64(*o))
}

func (o *octets) Type() string { return "size" }

func (o *octets) Set(s string) error {
	n, err := config.ParseSize(s)
	*o = octets(n)
	return err
}
