package main

import (
	"regexp"
	"slices"
	"strings"
)

// difference is one between the two servers in the answer to one command.
type difference struct {
	command      string
	ours, theirs []string
}

// state is the word that a reply ends with.
func state(list []string) string {
	s, _, _ := strings.Cut(list[len(list)-1], " ")
	return s
}

// explanation of differences that stay. All of them stand in
// docs/imap-differences.md, which a test compares with this table.
type explanation struct {
	name string
	// why ours is so.
	why string
	// parts: the mailboxes differ from here on, and the sequence ends.
	parts bool
	// explain returns the lines, of those that one has and not the other, that it
	// does not explain.
	explain func(d difference, ours, theirs []string) ([]string, []string)
}

// replies explains that the last lines differ in this way.
func replies(ours, theirs string, holds func(d difference) bool) func(difference, []string, []string) ([]string, []string) {
	a, b := regexp.MustCompile("^(?:"+ours+")$"), regexp.MustCompile("^(?:"+theirs+")$")
	return func(d difference, mine, other []string) ([]string, []string) {
		x, y := d.ours[len(d.ours)-1], d.theirs[len(d.theirs)-1]
		if x == y || !a.MatchString(x) || !b.MatchString(y) || holds != nil && !holds(d) {
			return mine, other
		}
		isLast := func(last string) func(string) bool { return func(l string) bool { return l == last } }
		return slices.DeleteFunc(slices.Clone(mine), isLast(x)), slices.DeleteFunc(slices.Clone(other), isLast(y))
	}
}

// alike explains lines that are the same after a change of both.
func alike(change func(string) string) func(difference, []string, []string) ([]string, []string) {
	return func(_ difference, mine, other []string) ([]string, []string) {
		mine = slices.Clone(mine)
		var left []string
		for _, l := range other {
			same := func(m string) bool { return m != l && change(m) == change(l) }
			if i := slices.IndexFunc(mine, same); i >= 0 {
				mine = slices.Delete(mine, i, i+1)
				continue
			}
			left = append(left, l)
		}
		return mine, left
	}
}

// lines explains lines that only one has.
func lines(ours, theirs string, holds func(d difference) bool) func(difference, []string, []string) ([]string, []string) {
	drop := func(list []string, pattern string) []string {
		if pattern == "" {
			return list
		}
		p := regexp.MustCompile("^(?:" + pattern + ")$")
		return slices.DeleteFunc(slices.Clone(list), p.MatchString)
	}
	return func(d difference, mine, other []string) ([]string, []string) {
		if holds != nil && !holds(d) {
			return mine, other
		}
		return drop(mine, ours), drop(other, theirs)
	}
}

func regexpOf(pattern string) func(difference) bool {
	p := regexp.MustCompile(pattern)
	return func(d difference) bool { return p.MatchString(d.command) }
}

func verb(words ...string) func(difference) bool {
	return func(d difference) bool {
		word, rest, _ := strings.Cut(d.command, " ")
		if word == "UID" {
			word, _, _ = strings.Cut(rest, " ")
		}
		return slices.Contains(words, word)
	}
}

var explanations = []explanation{
	{
		name:    "codes",
		why:     "A refusal has the response code of RFC 5530 that fits it; Dovecot often has none, or another.",
		explain: replies(`NO \[[A-Z]+\]`, `NO( \[[A-Z]+\])?`, nil),
	},
	{
		name:    "status-selected",
		why:     "STATUS of the selected mailbox is answered without a remark: RFC 9051 section 6.3.11 says that clients should not, and Dovecot answers with CLIENTBUG.",
		explain: replies(`OK`, `OK \[CLIENTBUG\]`, verb("STATUS")),
	},
	{
		name: "structure",
		why:  "BODYSTRUCTURE has the parameters that the part has, and one language as a string; Dovecot adds a charset of us-ascii to a text without one, and has a list of languages always.",
		explain: alike(func(l string) string {
			return strings.NewReplacer(`("CHARSET" "us-ascii")`, "NIL", `("en")`, `"en"`).Replace(l)
		}),
	},
	{
		name:    "unfolded",
		why:     "A folded subject keeps the tab that its next line began with (RFC 5322 section 2.2.3 takes the line end away and nothing else); Dovecot makes it a blank.",
		explain: alike(func(l string) string { return strings.ReplaceAll(l, `\t`, " ") }),
	},
	{
		name:    "store-unchanged",
		why:     "STORE without .SILENT answers for each message, changed or not (RFC 9051 section 6.4.6); Dovecot leaves out those that stay as they were.",
		explain: lines(`\* \d+ FETCH (FLAGS|UID) .*`, "", verb("STORE")),
	},
	{
		name:    "read-only",
		why:     "STORE and EXPUNGE in a mailbox opened read-only are refused; Dovecot answers OK and changes nothing.",
		explain: replies(`NO \[NOPERM\]`, `OK`, verb("STORE", "EXPUNGE")),
	},
	{
		name:    "none-there",
		why:     "A set of message numbers in an empty mailbox names nothing and is no mistake, and what else is wrong is told; Dovecot answers BAD, or OK where the target of a MOVE is missing.",
		explain: replies(`OK|NO \[(NOPERM|TRYCREATE)\]`, `BAD|OK`, verb("FETCH", "STORE", "COPY", "MOVE", "SEARCH", "SORT", "THREAD")),
	},
	{
		name:    "search-unfolded",
		why:     "A search for words with a blank between them does not find them with the tab of a folded line between, which Dovecot makes a blank.",
		explain: lines(`\* (E?SEARCH|SORT|THREAD).*`, `\* (E?SEARCH|SORT|THREAD).*`, func(d difference) bool { return strings.Contains(d.command, `"subject line"`) }),
	},
	{
		name:    "beyond",
		why:     "A search for a range from a number above the last to * finds the last message, for the order of a range's ends does not matter (RFC 9051 section 9, seq-range); in Dovecot's SEARCH it finds none.",
		explain: lines(`\* (E?SEARCH|SORT|THREAD).*`, `\* (E?SEARCH|SORT|THREAD).*`, regexpOf(`(SEARCH|SORT|THREAD) .*[0-9]:\*`)),
	},
	{
		name:    "move-read-only",
		why:     "MOVE out of a mailbox opened read-only is refused; Dovecot moves.",
		parts:   true,
		explain: refused("MOVE"),
	},
	{
		name:  "store-nothing",
		why:   "STORE 1 FLAGS without a flag or a list is a mistake by the grammar of RFC 9051 section 9; Dovecot takes all flags away.",
		parts: true,
		explain: func(d difference, mine, other []string) ([]string, []string) {
			if verb("STORE")(d) && strings.HasSuffix(d.command, " FLAGS") && slices.Equal(d.ours, []string{"BAD"}) {
				return nil, nil
			}
			return mine, other
		},
	},
	{
		name: "no-date",
		why:  "A mail without a Date field was sent on no day: SENTBEFORE, SENTON and SENTSINCE do not find it, and NOT finds it; SORT by DATE takes the day on which it came (RFC 5256 section 2.2). Dovecot takes it as sent in 1970, and its SORT has not always the same place for it.",
		explain: lines(`\* (SEARCH|SORT|THREAD|ESEARCH).*`, `\* (SEARCH|SORT|THREAD|ESEARCH).*`, func(d difference) bool {
			return strings.Contains(d.command, "SENT") || strings.Contains(d.command, "DATE)")
		}),
	},
	{
		name:    "unsubscribe",
		why:     "UNSUBSCRIBE of a mailbox that is neither there nor subscribed is refused; Dovecot answers OK.",
		explain: replies(`NO.*`, `OK`, verb("UNSUBSCRIBE")),
	},
	{
		name:    "reference",
		why:     "LIST's reference is a level of the hierarchy, with or without the separator at its end; Dovecot puts reference and pattern together as they stand. RFC 9051 section 6.3.9 leaves it to the server.",
		explain: lines(`\* (LIST|LSUB) .*`, `\* (LIST|LSUB) .*`, func(d difference) bool { return verb("LIST", "LSUB")(d) && strings.Contains(d.command, ` "d`) }),
	},
}

// refused explains that ours refuses what is done in a mailbox opened read-only.
func refused(words ...string) func(difference, []string, []string) ([]string, []string) {
	return func(d difference, mine, other []string) ([]string, []string) {
		if verb(words...)(d) && slices.Equal(d.ours, []string{"NO [NOPERM]"}) && state(d.theirs) == "OK" {
			return nil, nil
		}
		return mine, other
	}
}
