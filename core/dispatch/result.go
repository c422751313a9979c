package dispatch

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/deliver"
	"github.com/stagecoach-mta/stagecoach/core/queue"
	"github.com/stagecoach-mta/stagecoach/core/schedule"
)

// judge says what an attempt's outcomes tell of its lane. A mail that was taken
// says most: who takes one is there and has enough of nothing.
func judge(outcomes []deliver.Outcome) (schedule.Result, time.Duration, string) {
	best := schedule.Untried
	var wait time.Duration
	var reason string
	for i := range outcomes {
		o := &outcomes[i]
		r := resultOf(o)
		if rank[r] > rank[best] || i == 0 {
			best, reason = r, o.Attempt.Text
		}
		if r == schedule.Throttled {
			wait = max(wait, o.RetryAfter, asksToWait(o.Attempt.Text))
		}
	}
	return best, wait, reason
}

// rank orders results by how much they say for a lane.
var rank = [...]int{
	schedule.Untried: 0, schedule.Unreachable: 1, schedule.Lost: 2, schedule.Deferred: 3, schedule.Throttled: 4, schedule.Answered: 5,
}

func resultOf(o *deliver.Outcome) schedule.Result {
	a := &o.Attempt
	switch {
	case o.NotTried:
		return schedule.Untried
	case a.Code/100 == 2, a.Code/100 == 5:
		return schedule.Answered
	case o.Unreachable && a.Enhanced == "4.3.0": // our own disk
		return schedule.Untried
	case a.Enhanced == "4.4.2" && (o.Unreachable || strings.HasPrefix(a.Text, "The connection broke")):
		return schedule.Lost
	case o.Unreachable:
		return schedule.Unreachable
	case throttles(a):
		return schedule.Throttled
	}
	return schedule.Deferred
}

// throttles tells a reply that speaks of the sender's load from one that speaks
// of a recipient. 421 ends the session whatever the mail was (RFC 5321 section
// 3.8). Of 450, 451 and 452 only those are meant that name a rate: greylisting
// has the same codes, and is about one mail.
func throttles(a *queue.Attempt) bool {
	text := strings.ToLower(a.Text)
	if strings.Contains(text, "greylist") || strings.Contains(text, "graylist") || strings.Contains(text, "grey-list") {
		return false
	}
	switch {
	case a.Code == 421:
		return true
	case a.Code/100 != 4:
		return false
	case a.Enhanced == "4.3.2", a.Enhanced == "4.4.5", a.Enhanced == "4.7.28": // RFC 3463 sections 3.4 and 3.5; Google's rate
		return true
	}
	for _, word := range rateWords {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

// rateWords are what large receivers say in a 4xx reply when they want less.
var rateWords = []string{
	"rate limit", "ratelimit", "rate-limit", "too many connections", "too many concurrent", "too many messages", "too many mails",
	"throttl", "server busy", "unusual rate", "sending rate", "exceeded the rate", "slow down",
}

var waitPattern = regexp.MustCompile(`(?i)\b(?:in|after|for|wait)\s+(?:about\s+|at least\s+)?(\d{1,5})\s*(s|secs?|seconds?|m|mins?|minutes?|h|hours?)\b`)

// asksToWait is the time that a reply's text asks for: "try again in 5 minutes".
func asksToWait(text string) time.Duration {
	m := waitPattern.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour}[strings.ToLower(m[2])[0]]
	return time.Duration(n) * unit
}
