package dkim

import (
	"context"
	"crypto"
	"hash"
	"io"
	"sync"
)

// Bodies hashes one body in all the ways that its signatures want, in one pass.
// It is for one goroutine.
type Bodies struct {
	sums []*BodySum
}

// BodySum is one of those hashes.
type BodySum struct {
	// Sum is set once the body was read.
	Sum []byte
	// Length is how many octets the canonical body has; more than Limit of them
	// are not in Sum.
	Length int64
	// Limit is l=; negative: none.
	Limit int64

	canonical Canonicalization
	algorithm crypto.Hash
	hash      hash.Hash
	out       []byte
	hashed    int64
	lines     int  // line ends that count only if something follows
	blank     bool // white space that counts only if something follows in the line
	cr        bool
}

// Want asks for a hash; who wants what another one wants gets the same.
func (b *Bodies) Want(c Canonicalization, algorithm crypto.Hash, limit int64) *BodySum {
	for _, s := range b.sums {
		if s.canonical == c && s.algorithm == algorithm && s.Limit == limit {
			return s
		}
	}
	s := &BodySum{canonical: c, algorithm: algorithm, hash: algorithm.New(), Limit: limit}
	b.sums = append(b.sums, s)
	return s
}

var blocks = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// Read reads the body, if anybody wants it, and makes the sums; not further once
// ctx has ended, which is then its error.
func (b *Bodies) Read(ctx context.Context, body io.Reader) error {
	if len(b.sums) == 0 {
		return nil
	}
	block := blocks.Get().(*[]byte)
	defer blocks.Put(block)
	for _, s := range b.sums {
		s.out = make([]byte, 0, 1<<10)
	}
	for {
		n, err := body.Read(*block)
		for _, s := range b.sums {
			s.write((*block)[:n])
		}
		if err == io.EOF {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	for _, s := range b.sums {
		s.end()
	}
	return nil
}

// write takes a piece of the body (RFC 6376 sections 3.4.3 and 3.4.4). A CR or LF
// that stands alone is an octet like others.
func (s *BodySum) write(p []byte) {
	relaxed := s.canonical == Relaxed
	for i := 0; i < len(p); {
		c := p[i]
		if s.cr {
			s.cr = false
			if c == '\n' {
				s.lines++
				s.blank = false
				i++
				continue
			}
			s.content(crOnly)
		}
		switch {
		case c == '\r':
			s.cr = true
			i++
		case relaxed && (c == ' ' || c == '\t'):
			s.blank = true
			i++
		default:
			n := i + 1
			if relaxed {
				for n < len(p) && p[n] != ' ' && p[n] != '\t' && p[n] != '\r' {
					n++
				}
			} else {
				for n < len(p) && p[n] != '\r' {
					n++
				}
			}
			s.content(p[i:n])
			i = n
		}
	}
}

var (
	crOnly  = []byte("\r")
	lineEnd = []byte("\r\n")
	space   = []byte(" ")
)

// content writes what was waiting for something to follow, and that.
func (s *BodySum) content(p []byte) {
	for ; s.lines > 0; s.lines-- {
		s.emit(lineEnd)
	}
	if s.blank {
		s.blank = false
		s.emit(space)
	}
	s.emit(p)
}

func (s *BodySum) emit(p []byte) {
	s.Length += int64(len(p))
	if s.Limit >= 0 {
		p = p[:min(int64(len(p)), s.Limit-s.hashed)]
	}
	s.hashed += int64(len(p))
	if len(s.out)+len(p) > cap(s.out) {
		s.flush()
		if len(p) > cap(s.out) {
			_, _ = s.hash.Write(p)
			return
		}
	}
	s.out = append(s.out, p...)
}

func (s *BodySum) flush() {
	_, _ = s.hash.Write(s.out) // a hash never fails
	s.out = s.out[:0]
}

// end: of the empty lines at the end none is left, of a body that has something
// one line end, and of an empty one in the simple form too.
func (s *BodySum) end() {
	if s.cr {
		s.content(crOnly)
	}
	if s.Length > 0 || s.canonical == Simple {
		s.emit(lineEnd)
	}
	s.flush()
	s.Sum = s.hash.Sum(nil)
}
