package imap

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk/mime"
)

// thread is THREAD (RFC 5256).
func (ss *session) thread(cmd *command) error {
	p := cmd.p
	p.SP()
	algorithm := p.Word()
	if algorithm != "REFERENCES" && algorithm != "ORDEREDSUBJECT" {
		p.Fail("THREAD knows REFERENCES and ORDEREDSUBJECT, not %s", algorithm)
	}
	k := &keys{ss: ss, cmd: cmd, p: p, now: time.Now()}
	p.SP()
	k.charset()
	p.SP()
	criterion := k.program()
	if err := cmd.end(); err != nil {
		return err
	}
	found, err := k.find(criterion)
	if err != nil {
		return err
	}
	list, err := ss.records(found, true)
	if err != nil {
		return err
	}
	var roots []*node
	if algorithm == "REFERENCES" {
		roots = byReferences(list)
	} else {
		roots = byOrderedSubject(list)
	}
	ss.out.raw("* THREAD")
	if len(roots) > 0 {
		ss.out.raw(" ")
	}
	for _, r := range roots {
		ss.out.raw("(")
		ss.out.b = r.write(ss.out.b, func(seq uint32) uint32 { return ss.number(cmd, seq) })
		ss.out.raw(")")
	}
	ss.out.end()
	return nil
}

// node is a message in a thread, or the place of one that is not here.
type node struct {
	r        *record
	parent   *node
	children []*node
}

// write a thread: a chain as "1 2 3", several answers each in parentheses. A place
// without a message has only its children.
func (n *node) write(b []byte, number func(uint32) uint32) []byte {
	for {
		if n.r != nil {
			b = strconv.AppendUint(b, uint64(number(n.r.seq)), 10)
		}
		if len(n.children) != 1 {
			break
		}
		if n.r != nil {
			b = append(b, ' ')
		}
		n = n.children[0]
	}
	if len(n.children) > 0 && n.r != nil {
		b = append(b, ' ')
	}
	for _, c := range n.children {
		b = append(b, '(')
		b = c.write(b, number)
		b = append(b, ')')
	}
	return b
}

// sent of a thread's first message.
func (n *node) sent() (int64, uint32) {
	for n.r == nil && len(n.children) > 0 {
		n = n.children[0]
	}
	if n.r == nil {
		return 0, 0
	}
	return n.r.sent, n.r.seq
}

func bySent(a, b *node) int {
	at, an := a.sent()
	bt, bn := b.sent()
	return cmp.Or(cmp.Compare(at, bt), cmp.Compare(an, bn))
}

// byOrderedSubject: messages of one base subject are a thread, the oldest first
// and the others its answers.
func byOrderedSubject(list []*record) []*node {
	slices.SortFunc(list, func(a, b *record) int {
		return cmp.Or(cmp.Compare(a.sent, b.sent), cmp.Compare(a.seq, b.seq))
	})
	threads := map[string]*node{}
	var roots []*node
	for _, r := range list {
		base, _ := baseSubject(mime.DecodeHeader(string(r.summary.GetSubject())))
		n := &node{r: r}
		if first := threads[casemap(base)]; first != nil {
			first.children = append(first.children, n)
			continue
		}
		threads[casemap(base)] = n
		roots = append(roots, n)
	}
	return roots
}

// byReferences is the REFERENCES algorithm of RFC 5256 section 3; the numbers are
// its steps'.
func byReferences(list []*record) []*node {
	ids := map[string]*node{}
	var order []*node
	place := func(id string) *node {
		n := ids[id]
		if n == nil {
			n = &node{}
			ids[id] = n
			order = append(order, n)
		}
		return n
	}
	for _, r := range list { // (1)
		id := ""
		if own := mime.MessageIDs(r.summary.GetMessageId()); len(own) > 0 {
			id = own[0]
		}
		n := ids[id]
		if id == "" || n != nil && n.r != nil {
			// No id, or one that another message has: it gets one of its own.
			id = "\x00" + strconv.FormatUint(uint64(r.seq), 10)
			n = nil
		}
		if n == nil {
			n = place(id)
		}
		n.r = r
		refs := mime.MessageIDs(r.summary.GetReferences())
		if len(refs) == 0 {
			if refs = mime.MessageIDs(r.summary.GetInReplyTo()); len(refs) > 1 {
				refs = refs[:1]
			}
		}
		var parent *node
		for _, ref := range refs { // (1A)
			next := place(ref)
			if parent != nil && next.parent == nil && next != parent && !parent.below(next) {
				parent.adopt(next)
			}
			parent = next
		}
		n.leave() // (1B): its own References say more than others'.
		if parent != nil && !parent.below(n) {
			parent.adopt(n)
		}
	}
	root := &node{}
	for _, n := range order { // (2)
		if n.parent == nil {
			root.adopt(n)
		}
	}
	root.prune(true) // (3)
	for _, n := range root.children {
		n.sort()
	}
	slices.SortStableFunc(root.children, bySent) // (4)
	root.bySubject()                             // (5)
	root.sort()                                  // (6)
	return root.children
}

func (n *node) adopt(c *node) {
	c.parent = n
	n.children = append(n.children, c)
}

func (n *node) leave() {
	if n.parent == nil {
		return
	}
	n.parent.children = slices.DeleteFunc(n.parent.children, func(c *node) bool { return c == n })
	n.parent = nil
}

// below tells whether n is x or under it.
func (n *node) below(x *node) bool {
	for ; n != nil; n = n.parent {
		if n == x {
			return true
		}
	}
	return false
}

// prune takes out places without a message: one without children goes, the
// children of another move up, but not to the root if they are several.
func (n *node) prune(root bool) {
	var kept []*node
	for _, c := range n.children {
		c.prune(false)
		switch {
		case c.r != nil:
			kept = append(kept, c)
		case len(c.children) == 0:
		case !root || len(c.children) == 1:
			for _, g := range c.children {
				g.parent = n
				kept = append(kept, g)
			}
		default:
			kept = append(kept, c)
		}
	}
	n.children = kept
}

func (n *node) sort() {
	for _, c := range n.children {
		c.sort()
	}
	slices.SortStableFunc(n.children, bySent)
}

// subject of a thread: its first message's.
func (n *node) subject() (base string, reply bool) {
	if n.r == nil && len(n.children) > 0 {
		n = n.children[0]
	}
	if n.r == nil {
		return "", false
	}
	base, reply = baseSubject(mime.DecodeHeader(string(n.r.summary.GetSubject())))
	return casemap(base), reply
}

// bySubject joins threads of the same base subject (5).
func (n *node) bySubject() {
	table := map[string]*node{}
	for _, c := range n.children { // (5B)
		base, reply := c.subject()
		if base == "" {
			continue
		}
		old := table[base]
		if old == nil {
			table[base] = c
			continue
		}
		_, oldReply := old.subject()
		if c.r == nil && old.r != nil || oldReply && !reply && (c.r == nil) == (old.r == nil) {
			table[base] = c
		}
	}
	children := n.children
	n.children = nil
	for _, c := range children { // (5C)
		base, reply := c.subject()
		with := table[base]
		if base == "" || with == c || with == nil {
			c.parent = n
			n.children = append(n.children, c)
			continue
		}
		_, withReply := with.subject()
		switch {
		case c.r == nil && with.r == nil:
			for _, g := range c.children {
				with.adopt(g)
			}
		case with.r == nil:
			with.adopt(c)
		case reply && !withReply:
			with.adopt(c)
		default:
			// Both go below a place without a message, which takes with's own.
			both := &node{r: with.r, children: with.children}
			for _, g := range both.children {
				g.parent = both
			}
			with.r, with.children = nil, nil
			with.adopt(both)
			with.adopt(c)
		}
	}
}
