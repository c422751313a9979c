package mime

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync"
)

const chunkSize = 32 << 10

// scanner reads lines, or chunks of a line that is longer than its buffer.
type scanner struct {
	r   *bufio.Reader
	err error

	pos int64 // offset of the next octet
	lf  int64 // line feeds before pos
	eol int   // octets of the line end before pos: 0, 1 or 2

	cont   bool // the next chunk continues a line
	lastCR bool // the last chunk ended in CR
}

// line is valid until the next one is read.
type line struct {
	data    []byte // with its line end
	text    []byte // without
	start   int64
	lf      int64 // line feeds before start
	prevEOL int   // octets of the line end before start
	cont    bool  // data continues a line
	partial bool  // the line goes on
}

// buffered readers are used again: one is larger than most messages.
var buffered = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, chunkSize) }}

// newScanner takes a buffer, which close gives back.
func newScanner(r io.Reader) *scanner {
	b := buffered.Get().(*bufio.Reader)
	b.Reset(r)
	return &scanner{r: b}
}

func (s *scanner) close() {
	s.r.Reset(nil)
	buffered.Put(s.r)
	s.r = nil
}

func (s *scanner) next() (line, bool) {
	data, err := s.r.ReadSlice('\n')
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		s.err = err
		return line{}, false
	}
	if len(data) == 0 {
		return line{}, false
	}
	l := line{data: data, text: data, start: s.pos, lf: s.lf, prevEOL: s.eol, cont: s.cont}
	s.pos += int64(len(data))
	s.eol = 0
	if data[len(data)-1] == '\n' {
		s.lf++
		s.eol = 1
		l.text = data[:len(data)-1]
		if n := len(l.text); n > 0 && l.text[n-1] == '\r' {
			s.eol = 2
			l.text = l.text[:n-1]
		} else if n == 0 && s.cont && s.lastCR {
			s.eol = 2
		}
	}
	l.partial = s.eol == 0
	s.cont = l.partial
	s.lastCR = data[len(data)-1] == '\r'
	return l, true
}

// block takes whole lines at once, as many as are buffered and, if bounded, before
// one that could be a delimiter; nil if that is none, and then next goes on. It is
// valid as long as a line.
func (s *scanner) block(bounded bool) []byte {
	if s.cont {
		return nil
	}
	b, _ := s.r.Peek(s.r.Buffered())
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	if bounded {
		if bytes.HasPrefix(b, dashes[1:]) {
			return nil
		}
		if i := bytes.Index(b, dashes); i >= 0 {
			b = b[:i+1]
		}
	}
	if len(b) == 0 {
		return nil
	}
	_, _ = s.r.Discard(len(b)) // it is buffered
	s.pos += int64(len(b))
	s.lf += int64(bytes.Count(b, dashes[:1]))
	s.eol, s.cont, s.lastCR = 1, false, false
	if n := len(b); n > 1 && b[n-2] == '\r' {
		s.eol = 2
	}
	return b
}

// dashes begin a delimiter line (RFC 2046 section 5.1.1).
var dashes = []byte("\n--")

// stop says where a body ended: at a delimiter line of that level, or at the end
// of the input (level -1).
type stop struct {
	level   int
	final   bool
	start   int64 // of the delimiter line
	lf      int64
	prevEOL int // belongs to the delimiter (RFC 2046 section 5.1.1)
}

func (s *scanner) end() stop { return stop{level: -1, start: s.pos, lf: s.lf} }

// delimiter tells whether l is a delimiter line of one of the boundaries, the
// innermost first.
func (p *parser) delimiter(l line) (stop, bool) {
	if len(p.bounds) == 0 || l.cont || len(l.text) < 3 || l.text[0] != '-' || l.text[1] != '-' {
		return stop{}, false
	}
	text := bytes.TrimRight(l.text[2:], " \t\r")
	if len(text) > maxBoundary+2 {
		return stop{}, false
	}
	for i := len(p.bounds) - 1; i >= 0; i-- {
		rest, ok := bytes.CutPrefix(text, []byte(p.bounds[i]))
		if ok && (len(rest) == 0 || string(rest) == "--") {
			return stop{level: i, final: len(rest) != 0, start: l.start, lf: l.lf, prevEOL: l.prevEOL}, true
		}
	}
	return stop{}, false
}
