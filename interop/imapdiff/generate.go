package main

import (
	"fmt"
	"math/rand"
	"strings"
)

// command is one command without its tag; a literal ends it, if there is one.
type command struct{ text, literal string }

// The mails that are stored. Line ends are CRLF on the wire.
var mails = func() (out []string) {
	for _, m := range []string{
		"From: Tom <tom@hanks.example>\nTo: Meg <meg@ryan.example>\nSubject: You have got mail\nDate: Tue, 01 Dec 1998 10:11:12 -0500\nMessage-ID: <1@hanks.example>\n\nHello Meg\n",
		"From: Meg <meg@ryan.example>\nTo: Tom <tom@hanks.example>, \"Annie Reed\" <annie@reed.example>\nCc: both@ryan.example\nSubject: Re: You have got mail\nDate: Tue, 01 Dec 1998 12:00:00 +0000\nMessage-ID: <2@ryan.example>\nIn-Reply-To: <1@hanks.example>\nReferences: <1@hanks.example>\n\nDear friend,\n\nbouquets of newly sharpened pencils\n",
		"From: annie@reed.example\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nDate: Wed, 02 Dec 1998 09:00:00 +0100\nMessage-ID: <3@reed.example>\nMIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=\"b1\"\n\npreamble\n--b1\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=C3=9Fe\n--b1\nContent-Type: text/html\nContent-Language: en\n\n<p>Hello</p>\n--b1--\nepilogue\n",
		"From: Tom <tom@hanks.example>\nSubject: a file\nDate: Thu, 03 Dec 1998 10:00:00 +0000\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b2\n\n--b2\nContent-Type: text/plain\n\nsee the file\n--b2\nContent-Type: application/pdf; name=\"shop.pdf\"\nContent-Disposition: attachment; filename=\"shop.pdf\"\nContent-Transfer-Encoding: base64\nContent-ID: <part@hanks.example>\nContent-Description: the shop\n\naGVsbG8gd29ybGQ=\n--b2\nContent-Type: message/rfc822\n\nFrom: Meg <meg@ryan.example>\nTo: Tom <tom@hanks.example>\nSubject: inner\nDate: Tue, 01 Dec 1998 10:11:12 -0500\n\ninner text\n--b2--\n",
		"Subject: no sender\n\ntext without a sender\n",
		"From: Friends: Tom <tom@hanks.example>, meg@ryan.example;\nTo: undisclosed-recipients:;\nSubject: a group\nDate: Fri, 04 Dec 1998 10:00:00 +0000\nMessage-ID: <6@hanks.example>\nReferences: <1@hanks.example> <2@ryan.example>\n\ngroup\n",
		"From: \"Quoted \\\"Tom\\\"\" <tom@hanks.example>\nReply-To: meg@ryan.example\nSender: annie@reed.example\nBcc: hidden@reed.example\nSubject: folded\n subject\n\tline\nDate: Sat, 05 Dec 1998 10:00:00 +0000\nX-Shop: corner\n\n" + strings.Repeat("a line of text\n", 40),
	} {
		out = append(out, strings.ReplaceAll(m, "\n", "\r\n"))
	}
	return out
}()

// sequence makes the commands of one sequence; the same seed makes the same.
type sequence struct {
	r     *rand.Rand
	boxes []string
	// then is the next command, if there is one already.
	then command
}

func newSequence(seed int64) *sequence {
	root := fmt.Sprintf("d%d", seed)
	return &sequence{r: rand.New(rand.NewSource(seed)), boxes: []string{root + "a", root + "b", root + "a/inner"}}
}

func (s *sequence) one(of ...string) string { return of[s.r.Intn(len(of))] }

func (s *sequence) box() string { return s.boxes[s.r.Intn(len(s.boxes))] }

// prepare comes first: two mailboxes with some mails, one selected.
func (s *sequence) prepare() (list []command) {
	for _, b := range s.boxes[:2] {
		list = append(list, command{text: "CREATE " + b})
		for range 2 + s.r.Intn(5) {
			list = append(list, s.append(b))
		}
	}
	return append(list, command{text: "SELECT " + s.boxes[0]})
}

// finish comes last: what is in each mailbox, whole, and then it goes.
func (s *sequence) finish() (list []command) {
	for _, b := range s.boxes {
		list = append(list, command{text: "EXAMINE " + b},
			command{text: "FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE BODY.PEEK[])"}, command{text: "UNSELECT"})
	}
	return append(list, command{text: `LIST "" "` + s.boxes[0][:len(s.boxes[0])-1] + `*"`})
}

// leave removes the mailboxes; what it answers is not compared.
func (s *sequence) leave() (list []command) {
	for i := len(s.boxes) - 1; i >= 0; i-- {
		for _, b := range []string{s.boxes[i], s.boxes[i] + "-new"} {
			list = append(list, command{text: "UNSUBSCRIBE " + b}, command{text: "DELETE " + b})
		}
	}
	return list
}

func (s *sequence) append(box string) command {
	text := "APPEND " + box
	if s.r.Intn(2) == 0 {
		text += " (" + s.flags() + ")"
	}
	// Always a date: the clocks of two servers differ.
	text += fmt.Sprintf(` "%02d-Dec-1998 12:%02d:00 %s"`, 1+s.r.Intn(9), s.r.Intn(60), s.one("+0000", "-0500", "+0200"))
	return command{text, mails[s.r.Intn(len(mails))]}
}

func (s *sequence) flags() string {
	all := []string{`\Seen`, `\Flagged`, `\Answered`, `\Draft`, `\Deleted`, "$Label1", "work"}
	s.r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return strings.Join(all[:1+s.r.Intn(3)], " ")
}

// set of messages; now and then one that is not there.
func (s *sequence) set() string {
	n := 1 + s.r.Intn(6)
	switch s.r.Intn(7) {
	case 0:
		return "1:*"
	case 1:
		return "*"
	case 2:
		return fmt.Sprintf("%d:%d", n, n+s.r.Intn(3))
	case 3:
		return fmt.Sprintf("%d,%d", n, 1+s.r.Intn(6))
	case 4:
		return fmt.Sprintf("%d:*", n)
	default:
		return fmt.Sprint(n)
	}
}

func (s *sequence) uid() string { return s.one("", "UID ") }

// next is a random command.
func (s *sequence) next() command {
	if cmd := s.then; cmd.text != "" {
		s.then = command{}
		return cmd
	}
	switch s.r.Intn(30) {
	case 0, 1:
		return command{text: s.one("SELECT ", "SELECT ", "SELECT ", "EXAMINE ") + s.box()}
	case 2, 3, 4:
		return s.append(s.box())
	case 5, 6, 7, 8, 9:
		return command{text: fmt.Sprintf("%sFETCH %s (%s)", s.uid(), s.set(), s.items())}
	case 10, 11, 12, 13:
		return command{text: fmt.Sprintf("%sSTORE %s %sFLAGS%s (%s)", s.uid(), s.set(), s.one("+", "-", ""), s.one("", ".SILENT"), s.flags())}
	case 14, 15:
		return command{text: fmt.Sprintf("%sCOPY %s %s", s.uid(), s.set(), s.box())}
	case 16:
		return command{text: fmt.Sprintf("%sMOVE %s %s", s.uid(), s.set(), s.box())}
	case 17:
		return command{text: s.one("EXPUNGE", "UID EXPUNGE "+s.set())}
	case 18, 19, 20, 21:
		return command{text: s.uid() + "SEARCH " + s.one("", "", "RETURN (MIN MAX COUNT) ", "RETURN (ALL) ") + s.key(2)}
	case 22:
		return command{text: fmt.Sprintf("%sSORT (%s) UTF-8 %s", s.uid(),
			s.one("ARRIVAL", "DATE", "REVERSE SIZE", "SUBJECT", "FROM DATE", "TO", "CC REVERSE ARRIVAL"), s.key(1))}
	case 23:
		return command{text: fmt.Sprintf("%sTHREAD %s UTF-8 %s", s.uid(), s.one("REFERENCES", "ORDEREDSUBJECT"), s.key(0))}
	case 24:
		return command{text: "STATUS " + s.box() + " (MESSAGES UNSEEN UIDNEXT)"}
	case 25:
		// Ours hangs up if the selected mailbox is removed.
		s.then = command{text: s.one("CREATE ", "DELETE ", "SUBSCRIBE ", "UNSUBSCRIBE ") + s.boxes[2]}
		return command{text: "UNSELECT"}
	case 26:
		root := s.boxes[0][:len(s.boxes[0])-1]
		return command{text: fmt.Sprintf(`%s "%s" "%s"`, s.one("LIST", "LIST", "LSUB"), s.one("", root), s.one(root+"*", root+"%", "*"+root+"a", "a/%"))}
	case 27:
		return command{text: s.one("NOOP", "CHECK", "CLOSE", "UNSELECT")}
	case 28:
		// Dovecot hangs up if the selected mailbox gets another name.
		s.then = command{text: s.one("RENAME "+s.boxes[2]+" "+s.boxes[2]+"-new", "RENAME "+s.boxes[2]+"-new "+s.boxes[2], "RENAME "+s.boxes[1]+" "+s.boxes[0])}
		return command{text: "UNSELECT"}
	default:
		return command{text: s.one("FETCH 0 FLAGS", "FETCH 1:* (NOTHING)", "STORE 1 FLAGS", "SEARCH", "FROBNICATE", "UID FETCH", "SEARCH KEYWORD",
			"COPY 1", "STATUS "+s.boxes[0]+" ()", "FETCH 1 BODY[", "SELECT "+s.boxes[0]+"-none", "APPEND "+s.boxes[0])}
	}
}

func (s *sequence) items() string {
	all := []string{"FLAGS", "UID", "ENVELOPE", "BODY", "BODYSTRUCTURE", "RFC822.SIZE", "INTERNALDATE", "BODY.PEEK[]", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]",
		"BODY.PEEK[HEADER.FIELDS (Subject From)]", "BODY.PEEK[HEADER.FIELDS.NOT (Date Message-ID)]", "BODY.PEEK[1]", "BODY.PEEK[2]", "BODY.PEEK[2.MIME]",
		"BODY.PEEK[3.HEADER]", "BODY.PEEK[3.TEXT]", "BODY.PEEK[3.1]", "BODY.PEEK[9]", "BODY.PEEK[]<5.20>", "BODY.PEEK[TEXT]<0.10>", "BODY.PEEK[]<100000.5>",
		"BODY[]", "BODY[TEXT]", "RFC822.HEADER", "RFC822.TEXT", "RFC822", "BINARY.PEEK[1]", "BINARY.PEEK[2]", "BINARY.SIZE[2]"}
	s.r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return strings.Join(all[:1+s.r.Intn(4)], " ")
}

// key of a search, depth deep.
func (s *sequence) key(depth int) string {
	if depth > 0 {
		switch s.r.Intn(6) {
		case 0:
			return "NOT " + s.key(depth-1)
		case 1:
			return "OR " + s.key(depth-1) + " " + s.key(depth-1)
		case 2:
			return "(" + s.key(depth-1) + " " + s.key(depth-1) + ")"
		case 3:
			return s.key(depth-1) + " " + s.key(depth-1)
		}
	}
	day := fmt.Sprintf("%d-Dec-1998", 1+s.r.Intn(9))
	return s.one("ALL", "SEEN", "UNSEEN", "FLAGGED", "UNFLAGGED", "ANSWERED", "UNANSWERED", "DELETED", "UNDELETED", "DRAFT", "UNDRAFT",
		"KEYWORD $Label1", "UNKEYWORD work", "KEYWORD never", "SUBJECT mail", "SUBJECT folded", "FROM tom", "FROM hanks.example", "TO meg", "CC both",
		"BCC hidden", "BODY pencils", "TEXT corner", "TEXT hello", "HEADER X-Shop corner", `HEADER X-Shop ""`, "HEADER Message-ID 2@ryan", `SUBJECT "subject line"`,
		"BEFORE "+day, "ON "+day, "SINCE "+day, "SENTBEFORE "+day, "SENTON "+day, "SENTSINCE "+day, "LARGER 300", "SMALLER 400",
		s.set(), "UID "+s.set(), "BODY inner", "BODY world")
}
