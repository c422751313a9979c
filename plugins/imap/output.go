package imap

import (
	"bytes"
	"net"
	"strconv"
	"sync"
	"time"
)

// gathered is how many octets of replies wait for more before they go out.
const gathered = 32 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, gathered+8<<10); return &b }}

// output gathers replies and writes them when there are many, or when the
// client is waited for. It follows the replies' framing, to know when a command
// has been answered. An idle connection holds no buffer.
type output struct {
	to      net.Conn
	timeout time.Duration

	mu      sync.Mutex
	buffer  *[]byte
	reading bool
	silent  bool
	err     error

	// Framing: the first and last octets of the line under way, and the rest
	// of a literal in it.
	head, end []byte
	skip      int64
	within    bool

	tag               []byte
	answered, invited bool
}

func (o *output) write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.silent {
		// The greeting of a session that goes on after STARTTLS.
		o.silent = false
		return len(p), nil
	}
	o.follow(p)
	return len(p), o.put(p)
}

// untagged writes a line of our own, if the parser is not inside one.
func (o *output) untagged(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.within && len(o.head) == 0 {
		_ = o.put([]byte(line))
	}
}

func (o *output) put(p []byte) error {
	if o.err != nil {
		return o.err
	}
	if o.buffer == nil {
		o.buffer = buffers.Get().(*[]byte)
	}
	*o.buffer = append(*o.buffer, p...)
	if o.reading || len(*o.buffer) >= gathered {
		o.send()
	}
	return o.err
}

// send writes what was gathered; the caller holds the lock.
func (o *output) send() {
	if o.buffer == nil {
		return
	}
	if o.err == nil {
		o.to.SetWriteDeadline(time.Now().Add(o.timeout))
		_, o.err = o.to.Write(*o.buffer)
	}
	if cap(*o.buffer) <= 2*gathered {
		*o.buffer = (*o.buffer)[:0]
		buffers.Put(o.buffer)
	}
	o.buffer = nil
}

func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.send()
}

// beforeRead sends what there is; until afterRead every write goes out at once.
func (o *output) beforeRead() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.send()
	o.reading = true
	return o.err
}

func (o *output) afterRead() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reading = false
}

// expect says which tag the next answer has.
func (o *output) expect(tag string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tag, o.answered, o.invited = append(append(o.tag[:0], tag...), ' '), false, false
}

// answer tells whether the command was answered, and whether its literal was
// invited with "+".
func (o *output) answer() (answered, invited bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.answered, o.invited
}

// follow keeps track of lines and literals in what the parser writes.
func (o *output) follow(p []byte) {
	for len(p) > 0 {
		if o.skip > 0 {
			n := min(o.skip, int64(len(p)))
			o.skip -= n
			p = p[n:]
			continue
		}
		n := bytes.IndexByte(p, '\n') + 1
		line := p
		if n > 0 {
			line = p[:n]
		}
		p = p[len(line):]
		if !o.within {
			o.head = append(o.head, line[:min(len(line), maxTag+2-min(len(o.head), maxTag+2))]...)
		}
		o.end = append(o.end, line[max(0, len(line)-24):]...)
		o.end = append(o.end[:0], o.end[max(0, len(o.end)-24):]...)
		if n == 0 {
			return
		}
		if size, ok := literalEnd(o.end); ok {
			o.skip, o.within, o.end = size, true, o.end[:0]
			continue
		}
		switch {
		case len(o.tag) > 1 && bytes.HasPrefix(o.head, o.tag):
			o.answered = true
		case bytes.HasPrefix(o.head, []byte("+ ")):
			o.invited = true
		}
		o.head, o.end, o.within = o.head[:0], o.end[:0], false
	}
}

// literalEnd reads the size of a literal that a reply's line ends with.
func literalEnd(end []byte) (int64, bool) {
	line, ok := bytes.CutSuffix(end, []byte("}\r\n"))
	i := bytes.LastIndexByte(line, '{')
	if !ok || i < 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(line[i+1:]), 10, 64)
	return n, err == nil
}
