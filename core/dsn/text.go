package dsn

import (
	"slices"
	"strings"
	"time"
)

// texts are for a person who does not know what an MTA is: what happened first,
// then what to do.
var texts = map[Action]struct{ subject, happened, todo string }{
	Failed: {
		"Your message could not be delivered",
		"Your message could not be delivered to:",
		"Nothing more will be tried. Please check the address for mistakes, or reach\r\nthe person in another way. If the answer above makes no sense to you, show it\r\nto whoever looks after your mail.",
	},
	Delayed: {
		"Your message is delayed",
		"Your message has not been delivered yet to:",
		"You need not do anything and need not send it again: further attempts follow\r\nby themselves. You are told if they fail in the end.",
	},
	Delivered: {
		"Your message was delivered",
		"As you asked to be told: your message was delivered to:",
		"You need not do anything.",
	},
	Relayed: {
		"Your message was passed on",
		"As you asked to be told: your message was passed on to the next server for:",
		"That server sends no such notices, so this is the last that you will hear of it\r\nunless the delivery fails. You need not do anything.",
	},
	Expanded: {
		"Your message was passed to a list",
		"As you asked to be told: your message was passed to all members of:",
		"Whether each of them gets it is not reported. You need not do anything.",
	},
}

// human is the part for the sender.
func (w *writer) human() string {
	s := &writer{}
	t := texts[w.Action]
	s.line("This is the mail server at %s.", clean(w.Hostname))
	s.line("")
	s.line("%s", t.happened)
	s.line("")
	for _, r := range w.Recipients {
		s.line("    %s", clean(r.Address))
		if a := r.Attempt; a != nil && a.Text != "" && (w.Action == Failed || w.Action == Delayed) {
			who := "The reason"
			if a.RemoteMTA != "" {
				who = "The server " + clean(a.RemoteMTA) + " answered"
			}
			s.line("        %s:", who)
			s.line("        %s", words(a))
		} else if reason := clean(r.Reason); reason != "" && w.Action == Failed {
			s.line("        The reason:")
			s.line("        %s", reason)
		}
		if w.Action == Delayed && !r.RetryUntil.IsZero() {
			s.line("        Attempts go on until %s.", r.RetryUntil.Format("Monday, 2 January 2006 15:04 -0700"))
		}
		s.line("")
	}
	todo := t.todo
	if w.Action == Failed && !slices.ContainsFunc(w.Recipients, func(r Recipient) bool { return r.Attempt == nil || r.Attempt.Enhanced != "5.4.7" }) {
		todo = "You wanted it there by a time that is over, so nothing more will be tried."
	}
	if w.Action == Relayed && w.Envelope.Parameters.GetDeliverByMode() != "" {
		todo = "What becomes of it there, and when, is for that server to say. You need not do\r\nanything."
	}
	s.line("%s", todo)
	s.line("")
	if subject := clean(w.Envelope.Subject); subject != "" && !strings.Contains(subject, "=?") {
		s.line("The message was: %s", subject)
	}
	if at := w.Envelope.Received; !at.IsZero() {
		s.line("It was sent on:  %s", at.Format(time.RFC1123Z))
	}
	if w.Body == nil {
		s.line("Its text was damaged on this server and can't be returned.")
	}
	return s.b.String()
}
