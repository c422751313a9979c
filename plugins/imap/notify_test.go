package imap_test

import (
	"strings"
	"testing"
)

// TestNotify: a client that sends nothing hears of its mailboxes, of the selected
// one with what it wants of new messages, and of the others' names and counters.
func TestNotify(t *testing.T) {
	s := start(t, true, nil)
	one, two := s.raw(true), s.raw(true)
	one.say("a CREATE Work\r\nb SELECT INBOX\r\n")
	one.until("b OK")
	one.say("c NOTIFY SET STATUS (selected-delayed (MessageNew (uid body.peek[header.fields (subject)]) MessageExpunge FlagChange)) " +
		"(subtree Work (MessageNew MessageExpunge FlagChange MailboxName)) (personal (MailboxName SubscriptionChange))\r\n")
	if got := one.until("c OK"); !strings.Contains(got, `* STATUS "Work" (MESSAGES 0 UIDNEXT 1 UIDVALIDITY `) {
		t.Errorf("NOTIFY SET STATUS: %q", got)
	}

	s.deposit("Subject: fresh\r\n\r\n1\r\n")
	one.until("* 1 EXISTS")
	one.until("* 1 FETCH (UID 1 BODY[HEADER.FIELDS (subject)] {")
	if got := one.until(")"); !strings.Contains(got, "Subject: fresh") {
		t.Errorf("the new message: %q", got)
	}

	two.say("a APPEND Work {5+}\r\nhello\r\n")
	two.until("a OK")
	one.until(`* STATUS "Work" (MESSAGES 1 UIDNEXT 2 `)
	two.say("b CREATE Work/Deep\r\n")
	two.until("b OK")
	// A watcher may look between the storage's making it and its being unsubscribed.
	if got := one.until("* LIST ("); !strings.Contains(got, `"/" "Work/Deep"`) {
		t.Errorf("CREATE: %q", got)
	}
	two.say("c RENAME Work/Deep Deep\r\n")
	two.until("c OK")
	one.until(`* LIST () "/" "Deep" ("OLDNAME" ("Work/Deep"))`)
	two.say("d SUBSCRIBE Deep\r\n")
	two.until("d OK")
	one.until(`* LIST (\Subscribed) "/" "Deep"`)
	two.say("e DELETE Deep\r\n")
	two.until("e OK")
	one.until(`* LIST (\NonExistent) "/" "Deep"`)

	// Flags at once; EXPUNGE is delayed to a command that may tell it.
	two.say("f SELECT INBOX\r\ng STORE 1 +FLAGS (\\Deleted)\r\n")
	two.until("g OK")
	one.until("* 1 FETCH (FLAGS (")
	two.say("h EXPUNGE\r\n")
	two.until("h OK")
	one.say("d FETCH 1 FLAGS\r\n")
	if got := one.until("d OK"); strings.Contains(got, "EXPUNGE") {
		t.Errorf("EXPUNGE came in a FETCH: %q", got)
	}
	one.say("e NOOP\r\n")
	if got := one.until("e OK"); !strings.Contains(got, "* 1 EXPUNGE") {
		t.Errorf("NOOP: %q", got)
	}

	for say, want := range map[string]string{
		"NOTIFY SET (selected (MessageNew))":                                "BAD",
		"NOTIFY SET (selected (FlagChange))":                                "BAD",
		"NOTIFY SET (inboxes (MessageNew (uid) MessageExpunge))":            "BAD",
		"NOTIFY SET (inboxes (MessageNew MessageExpunge AnnotationChange))": "NO [BADEVENT (",
		"NOTIFY NONE": "OK",
	} {
		one.say("x " + say + "\r\n")
		if got := one.until("x "); !strings.Contains(got, "x "+want) {
			t.Errorf("%s: %q", say, got)
		}
	}
}
