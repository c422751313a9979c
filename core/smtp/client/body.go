package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

const blockSize = 32 << 10

var blocks = sync.Pool{New: func() any { return new([blockSize]byte) }}

// outs hold a block of the message with its dots stuffed and the terminator.
var outs = sync.Pool{New: func() any { b := make([]byte, 0, blockSize+blockSize/8); return &b }}

// errBareLine: sent on, it would end lines for some servers and not for others,
// and so smuggle mail (CVE-2023-51764 and its like).
var errBareLine = errors.New("the message has a CR or LF that is not part of a CRLF")

// errSource: the message could not be read, or is not what it was said to be.
// The fault is ours, not the server's.
type errSource struct{ err error }

func (e errSource) Error() string { return "cannot read the message: " + e.err.Error() }
func (e errSource) Unwrap() error { return e.err }

// lineCheck finds bare CR and LF over blocks of any cut.
type lineCheck struct{ cr bool } // the block before ended in CR

func (l *lineCheck) ok(block []byte) bool {
	for len(block) > 0 {
		i := bytes.IndexByte(block, '\n')
		line := block
		if i >= 0 {
			line = block[:i]
		}
		switch {
		case len(line) == 0: // here only if i == 0
			if !l.cr {
				return false
			}
		case l.cr:
			return false
		default:
			j := bytes.IndexByte(line, '\r')
			if j >= 0 && j != len(line)-1 || j < 0 && i >= 0 {
				return false
			}
			l.cr = j >= 0
		}
		if i < 0 {
			return true
		}
		l.cr = false
		block = block[i+1:]
	}
	return true
}

// stuffer doubles dots at the start of lines (RFC 5321 section 4.5.2).
type stuffer struct{ midLine bool }

// append adds the block, stuffed, to out. Lines must have passed lineCheck, so
// that every LF ends a line.
func (s *stuffer) append(out, block []byte) []byte {
	if len(block) == 0 {
		return out
	}
	if !s.midLine && block[0] == '.' {
		out = append(out, '.')
	}
	s.midLine = block[len(block)-1] != '\n'
	for {
		i := bytes.Index(block, []byte("\n."))
		if i < 0 {
			return append(out, block...)
		}
		out = append(out, block[:i+1]...)
		out = append(out, '.')
		block = block[i+1:]
	}
}

// end adds what is missing of the last line's end, and the final dot.
func (s *stuffer) end(out []byte) []byte {
	if s.midLine {
		out = append(out, "\r\n"...)
	}
	return append(out, ".\r\n"...)
}

// sendDotted writes the message for DATA. final is called right before the
// octets with the final dot leave.
func sendDotted(w io.Writer, r io.Reader, final func()) error {
	in := blocks.Get().(*[blockSize]byte)
	defer blocks.Put(in)
	held := outs.Get().(*[]byte)
	defer outs.Put(held)
	var check lineCheck
	var stuff stuffer
	for {
		n, err := readFull(r, in[:])
		last := err == io.EOF
		if err != nil && !last {
			return errSource{err}
		}
		if !check.ok(in[:n]) || last && check.cr {
			return errSource{errBareLine}
		}
		out := stuff.append((*held)[:0], in[:n])
		if last {
			out = stuff.end(out)
			final()
		}
		*held = out
		if len(out) > 0 {
			if _, err := w.Write(out); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// sendChunk writes the message as one chunk, BDAT size LAST. If the source has another size, the last block is held back: the
// chunk stays incomplete and the server cannot take it for the whole.
func sendChunk(w io.Writer, r io.Reader, size int64, binary bool, final func()) error {
	in := blocks.Get().(*[blockSize]byte)
	defer blocks.Put(in)
	var check lineCheck
	left := size
	var probe [1]byte
	// The command leaves together with the first octets.
	head := copy(in[:], fmt.Sprintf("BDAT %d LAST\r\n", size))
	for {
		n, err := readFull(r, in[head:head+int(min(int64(blockSize-head), left))])
		if err != nil && err != io.EOF {
			return errSource{err}
		}
		left -= int64(n)
		if left > 0 && err == io.EOF {
			return errSource{fmt.Errorf("it is %d octets shorter than the %d announced", left, size)}
		}
		if !binary && (!check.ok(in[head:head+n]) || left == 0 && check.cr) {
			return errSource{errBareLine}
		}
		if left == 0 {
			if k, err := readFull(r, probe[:]); k > 0 || err != io.EOF {
				return errSource{fmt.Errorf("it is longer than the %d octets announced", size)}
			}
			final()
		}
		if _, err := w.Write(in[:head+n]); err != nil {
			return err
		}
		head = 0
		if left == 0 {
			return nil
		}
	}
}

// readFull fills p unless the source ends: then n may be short and err is
// io.EOF.
func readFull(r io.Reader, p []byte) (int, error) {
	n, err := io.ReadFull(r, p)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

// survey looks for 8-bit octets in header and body.
func survey(open func() (io.ReadCloser, error)) (header8, body8 bool, err error) {
	r, err := open()
	if err != nil {
		return false, false, err
	}
	defer r.Close()
	in := blocks.Get().(*[blockSize]byte)
	defer blocks.Put(in)
	inHeader := true
	empty := true // the line so far
	for {
		n, err := readFull(r, in[:])
		if err != nil && err != io.EOF {
			return false, false, err
		}
		for _, c := range in[:n] {
			if c >= 0x80 {
				if inHeader {
					header8 = true
				} else {
					return header8, true, nil
				}
			}
			if inHeader {
				// An empty line ends the header.
				switch {
				case c == '\n' && empty:
					inHeader = false
				case c == '\n':
					empty = true
				case c != '\r':
					empty = false
				}
			}
		}
		if err == io.EOF {
			return header8, body8, nil
		}
	}
}
