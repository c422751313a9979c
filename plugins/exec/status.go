package exec

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/stagecoach-mta/stagecoach/sdk/filter"
)

// meaning is what an exit status stands for.
type meaning struct {
	action   string
	code     int
	enhanced string
}

// usual are sysexits.h's statuses that speak of the mail. All others speak of the
// program (a shell that does not find it, an exception in Python, a wrong option)
// and are no verdict: the block's on_failure decides.
var usual = map[int]meaning{
	0:  {action: "accept"},
	65: {"reject", 550, "5.6.0"}, // EX_DATAERR
	67: {"reject", 550, "5.1.1"}, // EX_NOUSER
	68: {"reject", 550, "5.1.2"}, // EX_NOHOST
	75: {"defer", 451, "4.7.1"},  // EX_TEMPFAIL
	76: {"reject", 550, "5.5.0"}, // EX_PROTOCOL
	77: {"reject", 550, "5.7.1"}, // EX_NOPERM
}

var actions = []string{"accept", "reject", "defer", "hold", "discard", "fail"}

// statuses are the usual ones and those of the configuration.
func statuses(configured map[string]string) (map[int]meaning, error) {
	out := maps.Clone(usual)
	for key, text := range configured {
		status, err := strconv.Atoi(key)
		if err != nil || status < 0 || status > 255 {
			return nil, fmt.Errorf("%q is no exit status: write a number from 0 to 255", key)
		}
		m, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("status %d: %w", status, err)
		}
		out[status] = m
	}
	return out, nil
}

// parse reads "reject 550 5.7.1".
func parse(text string) (meaning, error) {
	words := strings.Fields(text)
	if len(words) == 0 || !slices.Contains(actions, words[0]) {
		return meaning{}, fmt.Errorf("%q is no verdict: write %s", text, strings.Join(actions, ", "))
	}
	m := meaning{action: words[0]}
	class := map[string]byte{"reject": '5', "defer": '4'}[m.action]
	switch {
	case class == 0 && len(words) > 1:
		return meaning{}, fmt.Errorf("%q: only reject and defer have codes", text)
	case class == 0:
		return m, nil
	case class == '5':
		m.code, m.enhanced = 550, "5.7.1"
	default:
		m.code, m.enhanced = 451, "4.7.1"
	}
	if len(words) > 1 {
		code, err := strconv.Atoi(words[1])
		if err != nil || len(words[1]) != 3 || words[1][0] != class {
			return meaning{}, fmt.Errorf("%q: the code of a %s has three digits, of which %c is the first", text, m.action, class)
		}
		m.code = code
	}
	if len(words) > 2 {
		if words[2][0] != class || strings.Count(words[2], ".") != 2 {
			return meaning{}, fmt.Errorf("%q: the enhanced code of a %s looks like %c.7.1", text, m.action, class)
		}
		m.enhanced = words[2]
	}
	if len(words) > 3 {
		return meaning{}, fmt.Errorf("%q: after the codes comes nothing; the words are what the program says last on its standard error", text)
	}
	return m, nil
}

// verdict with the program's own words, or the usual ones.
func (m meaning) verdict(said string) *filter.Verdict {
	switch m.action {
	case "reject":
		if said == "" {
			said = "The message was refused"
		}
		return filter.Reject(m.code, m.enhanced, said)
	case "defer":
		if said == "" {
			said = "Try again later"
		}
		return filter.Defer(m.code, m.enhanced, said)
	case "hold":
		if said == "" {
			said = "held by a program"
		}
		return filter.Hold(said)
	case "discard":
		return filter.Discard().Reason(said)
	}
	return filter.Accept().Note(said)
}

// longestText keeps a reply within what an SMTP line takes (RFC 5321 section
// 4.5.3.1.5: 512 octets), whatever stands in front of it.
const longestText = 300

// lastLine is the last line that says something, printable.
func lastLine(said, otherwise string) string {
	for _, line := range slices.Backward(strings.Split(said, "\n")) {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return ' '
			}
			return r
		}, line))
		if line != "" {
			return line[:min(len(line), longestText)]
		}
	}
	return otherwise
}
