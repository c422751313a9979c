package imaptest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Target is the server that scripts run against. All that is in the mailboxes
// whose names begin with Mailbox is deleted.
type Target struct {
	Address, User, Password string
	// Mailbox for the tests; "imaptest" if empty.
	Mailbox string
	// Patience for one reply; 10 s if 0.
	Patience time.Duration
}

func (t Target) mailbox() string {
	if t.Mailbox == "" {
		return "imaptest"
	}
	return t.Mailbox
}

// Capabilities that the server announces to a client that has logged in.
func (t Target) Capabilities() ([]string, error) {
	c, err := t.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.login(t); err != nil {
		return nil, err
	}
	untagged, err := c.simple("CAPABILITY")
	if err != nil {
		return nil, err
	}
	for _, u := range untagged {
		if text := flat(u); strings.HasPrefix(strings.ToUpper(text), "CAPABILITY ") {
			return strings.Fields(strings.ToUpper(text))[1:], nil
		}
	}
	return nil, errors.New("the server announces nothing")
}

// Run plays a script; the error says in which line the server did something else.
func (t Target) Run(s *Script) error {
	if s.users {
		return fmt.Errorf("%s: scripts with several users are not supported", s.Name)
	}
	r := &run{
		Script: s, t: t, modseqs: map[int]uint64{},
		vars: map[string]string{"mailbox": t.mailbox(), "mailbox_url": t.mailbox(), "user": t.User, "password": t.Password},
	}
	r.vars["username"], r.vars["domain"], _ = strings.Cut(t.User, "@")
	for range s.connections {
		c, err := t.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		r.conns = append(r.conns, c)
	}
	if err := r.prepare(); err != nil {
		return fmt.Errorf("%s: prepare: %w", s.Name, err)
	}
	for i := 0; i < len(s.commands); {
		n := 1
		if s.commands[i].tag != "" {
			for i+n < len(s.commands) && s.commands[i+n].tag != "" && s.commands[i+n].connection == s.commands[i].connection && !repeated(s.commands[i:i+n], s.commands[i+n].tag) {
				n++
			}
		}
		if err := r.group(s.commands[i : i+n]); err != nil {
			return fmt.Errorf("%s:%w", s.Name, err)
		}
		i += n
	}
	return nil
}

func repeated(group []*command, tag string) bool {
	for _, c := range group {
		if c.tag == tag {
			return true
		}
	}
	return false
}

type run struct {
	*Script
	t       Target
	conns   []*conn
	vars    map[string]string
	modseqs map[int]uint64
	next    int
}

// prepare brings the connections into the script's state.
func (r *run) prepare() error {
	box := r.t.mailbox()
	for i, c := range r.conns {
		if r.state >= auth {
			if err := c.login(r.t); err != nil {
				return err
			}
		}
		if i == 0 && r.state >= auth {
			if err := c.clear(box); err != nil {
				return err
			}
		}
	}
	if r.state >= created {
		if _, err := r.conns[0].simple("CREATE " + box); err != nil {
			return err
		}
	}
	if r.state >= appended {
		n := r.messages
		if n == 0 {
			n = len(r.mails)
		}
		for range n {
			if _, err := r.conns[0].exchange(append([]part{{text: "APPEND " + box}}, r.mail()...)); err != nil {
				return err
			}
		}
	}
	if r.state >= selected {
		for _, c := range r.conns {
			if _, err := c.simple("SELECT " + box); err != nil {
				return err
			}
		}
	}
	return nil
}

// mail is the next one of the mbox, as APPEND wants it.
func (r *run) mail() []part {
	m := r.mails[r.next%len(r.mails)]
	r.next++
	date := ""
	if !m.received.IsZero() {
		date = m.received.Format(` "02-Jan-2006 15:04:05 -0700"`)
	}
	return []part{{text: date + " "}, {text: string(m.body), literal: true}}
}

// group sends one command, or several at once, and judges the replies.
func (r *run) group(commands []*command) error {
	c := r.conns[commands[0].connection]
	tags := map[string]*command{}
	var all []part
	for _, cmd := range commands {
		tag := c.tag()
		tags[tag] = cmd
		r.vars["tag"] = tag
		all = append(all, part{text: tag + " "})
		all = append(all, r.complete(cmd)...)
		all = append(all, part{text: "\r\n"})
	}
	c.begin()
	if err := c.send(all); err != nil {
		return fmt.Errorf("%d: %w", commands[0].line, err)
	}
	var expects []*expectation
	for _, cmd := range commands {
		expects = append(expects, cmd.expects...)
	}
	met := make([]bool, len(expects))
	var seen []string
	for len(tags) > 0 {
		parts, err := c.reply()
		if err != nil {
			return fmt.Errorf("%d: %w; before it came %q", commands[0].line, err, seen)
		}
		text := flat(parts)
		seen = append(seen, text)
		if rest, ok := strings.CutPrefix(parts[0].text, "* "); ok {
			parts[0].text = rest
			known := false
			for i, e := range expects {
				if met[i] && e.kind != '!' || !r.matches(c, e, parts) {
					continue
				}
				if e.kind == '!' {
					return fmt.Errorf("%d: %q must not come", e.line, text)
				}
				// One reply may be all of what several lines expect.
				met[i], known = true, true
			}
			if r.strict && !known {
				return fmt.Errorf("%d: %q is not expected", commands[0].line, text)
			}
			c.follow(parts)
			continue
		}
		tag, rest, _ := strings.Cut(parts[0].text, " ")
		cmd := tags[tag]
		if cmd == nil {
			return fmt.Errorf("%d: %q is no reply", commands[0].line, text)
		}
		delete(tags, tag)
		parts[0].text = rest
		if err := r.judge(c, cmd, parts); err != nil {
			return fmt.Errorf("%d: %w; before it came %q", cmd.line, err, seen)
		}
	}
	for i, e := range expects {
		if e.kind == '*' && !met[i] {
			return fmt.Errorf("%d: %q is missing; there came %q", e.line, flat(e.text), seen)
		}
	}
	return nil
}

// complete puts variables in, and a mail into an APPEND that has none.
func (r *run) complete(cmd *command) []part {
	var out []part
	for _, p := range cmd.text {
		if !p.literal {
			p.text = substitute(p.text, r.vars)
		}
		out = append(out, p)
	}
	word, rest, _ := strings.Cut(out[0].text, " ")
	if strings.EqualFold(word, "APPEND") && len(out) == 1 && !strings.Contains(strings.ToUpper(rest), "CATENATE") {
		if rest == "" {
			out[0].text = word + " " + r.vars["mailbox"]
		}
		out = append(out, r.mail()...)
	}
	return out
}

func (r *run) matches(c *conn, e *expectation, got []part) bool {
	m := r.matcher(c)
	status := isStatusReply(got)
	if !m.reply(tokens(e.text, !status), tokens(got, !status)) {
		return false
	}
	r.keep(m)
	return true
}

func isStatusReply(parts []part) bool {
	word, _, _ := strings.Cut(parts[0].text, " ")
	switch strings.ToUpper(word) {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		return true
	}
	return false
}

func (r *run) judge(c *conn, cmd *command, parts []part) error {
	status, rest, _ := strings.Cut(parts[0].text, " ")
	if cmd.status != "" && !strings.EqualFold(status, cmd.status) {
		return fmt.Errorf("the reply is %q and not %s", flat(parts), cmd.status)
	}
	if cmd.prefix == nil {
		return nil
	}
	m := r.matcher(c)
	if !m.prefix(tokens(cmd.prefix, false), tokens([]part{{text: rest}}, false)) {
		return fmt.Errorf("the reply %q does not begin as %q", flat(parts), flat(cmd.prefix))
	}
	r.keep(m)
	return nil
}

func (r *run) matcher(c *conn) *matcher {
	modseqs := map[int]uint64{}
	for k, v := range r.modseqs {
		modseqs[k] = v
	}
	return &matcher{vars: r.vars, bound: map[string]string{}, modseqs: modseqs, seq: c.now}
}

func (r *run) keep(m *matcher) {
	for k, v := range m.bound {
		r.vars[k] = v
	}
	r.modseqs = m.modseqs
}

// conn is a connection that keeps count of its messages.
type conn struct {
	net.Conn
	r        *bufio.Reader
	patience time.Duration
	tags     int
	// numbers: for each message of now, its number when the command was sent;
	// 0 for one that came since.
	numbers []int
}

func (t Target) dial() (*conn, error) {
	nc, err := net.Dial("tcp", t.Address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, r: bufio.NewReader(nc), patience: t.Patience}
	if c.patience == 0 {
		c.patience = 10 * time.Second
	}
	_, err = c.reply()
	return c, err
}

func (c *conn) tag() string {
	c.tags++
	return "t" + strconv.Itoa(c.tags)
}

func (c *conn) login(t Target) error {
	_, err := c.simple(fmt.Sprintf("LOGIN %q %q", t.User, t.Password))
	return err
}

// clear deletes the mailboxes of the tests, the deepest first, and ends their
// subscriptions: those outlive them.
func (c *conn) clear(box string) error {
	listed, err := c.simple(`LIST "" ` + box + "*")
	if err != nil {
		return err
	}
	var names []string
	for _, parts := range listed {
		a := tokens(parts, true)
		if len(a) >= 4 && strings.EqualFold(a[0].text, "LIST") && !strings.Contains(strings.ToUpper(flat(parts)), `\NOSELECT`) {
			names = append(names, a[3].text)
		}
	}
	for i := len(names) - 1; i >= 0; i-- {
		if _, err := c.simple("DELETE " + strconv.Quote(names[i])); err != nil {
			return err
		}
	}
	if listed, err = c.simple(`LSUB "" ` + box + "*"); err != nil {
		return err
	}
	for _, parts := range listed {
		a := tokens(parts, true)
		if len(a) < 4 || !strings.EqualFold(a[0].text, "LSUB") {
			continue
		}
		if _, err := c.simple("UNSUBSCRIBE " + strconv.Quote(a[3].text)); err != nil {
			return err
		}
	}
	return nil
}

// simple sends a command that must succeed and returns the untagged replies.
func (c *conn) simple(text string) ([][]part, error) { return c.exchange([]part{{text: text}}) }

func (c *conn) exchange(parts []part) ([][]part, error) {
	tag := c.tag()
	c.begin()
	if err := c.send(append(append([]part{{text: tag + " "}}, parts...), part{text: "\r\n"})); err != nil {
		return nil, err
	}
	var out [][]part
	for {
		got, err := c.reply()
		if err != nil {
			return nil, err
		}
		if rest, ok := strings.CutPrefix(got[0].text, "* "); ok {
			got[0].text = rest
			c.follow(got)
			out = append(out, got)
			continue
		}
		if !strings.HasPrefix(got[0].text, tag+" OK") {
			return nil, fmt.Errorf("%s: %s", parts[0].text, flat(got))
		}
		return out, nil
	}
}

// send writes literals as those that nobody waits for.
func (c *conn) send(parts []part) error {
	var b strings.Builder
	for _, p := range parts {
		if p.literal {
			fmt.Fprintf(&b, "{%d+}\r\n", len(p.text))
		}
		b.WriteString(p.text)
	}
	c.SetWriteDeadline(time.Now().Add(c.patience))
	_, err := io.WriteString(c, b.String())
	return err
}

// reply reads one reply with its literals.
func (c *conn) reply() ([]part, error) {
	c.SetReadDeadline(time.Now().Add(c.patience))
	var out []part
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		line = strings.TrimSuffix(line, "\r\n")
		i := strings.LastIndexByte(line, '{')
		if !strings.HasSuffix(line, "}") || i < 0 {
			return append(out, part{text: line}), nil
		}
		n, err := strconv.Atoi(line[i+1 : len(line)-1])
		if err != nil {
			return append(out, part{text: line}), nil
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(c.r, b); err != nil {
			return nil, err
		}
		out = append(out, part{text: line[:i]}, part{text: string(b), literal: true})
	}
}

// begin numbers the messages anew: a command is sent.
func (c *conn) begin() {
	for i := range c.numbers {
		c.numbers[i] = i + 1
	}
}

// follow keeps count.
func (c *conn) follow(parts []part) {
	number, rest, _ := strings.Cut(parts[0].text, " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		return
	}
	switch word, _, _ := strings.Cut(rest, " "); strings.ToUpper(word) {
	case "EXISTS":
		for len(c.numbers) < n {
			c.numbers = append(c.numbers, len(c.numbers)+1)
		}
		c.numbers = c.numbers[:n]
	case "EXPUNGE":
		if n >= 1 && n <= len(c.numbers) {
			c.numbers = append(c.numbers[:n-1], c.numbers[n:]...)
		}
	}
}

// now is the number of a message that had number n.
func (c *conn) now(n int) string {
	for i, was := range c.numbers {
		if was == n {
			return strconv.Itoa(i + 1)
		}
	}
	return "gone"
}

func flat(parts []part) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.text)
	}
	return b.String()
}
