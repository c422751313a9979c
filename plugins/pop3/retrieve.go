package pop3

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync"
)

// send streams a message, at most lines lines of its body (all if negative).
func (ss *session) send(n int, lines int) {
	ctx, cancel := ss.call()
	defer cancel()
	m := ss.drop.messages[n-1]
	r, err := ss.drop.open(ctx, n)
	switch {
	case err != nil:
		ss.problem(err, ss.account, "read the message")
		return
	case r == nil:
		ss.fail("Message %d is gone: another client removed it", n)
		return
	}
	defer r.Close()
	ss.enlarge()
	if lines < 0 {
		ss.ok("%d octets", m.size)
	} else {
		ss.ok("Top of message follows")
	}
	if err := stuff(ss.out, r, lines); err != nil {
		if !ss.cut {
			ss.s.host.Log.Error().Err(err).Str("account", ss.account).Uint32("uid", m.uid).Msg("cannot read a message to its end")
		}
		// The answer cannot be completed, and anything that follows would be
		// taken for its rest.
		ss.ended = true
		ss.raw.Close()
		return
	}
	if lines < 0 {
		ss.s.meters.sent.Add(1)
	}
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, large) }}

// stuff writes a message as a multi-line answer: a dot before each line that
// begins with one, and the final dot (RFC 1939 section 3). Of the body it writes
// at most lines lines, all if negative (section 7, TOP). A bare LF becomes a
// line end, for the answer has no other; all else stays as it is.
func stuff(w *bufio.Writer, r io.Reader, lines int) error {
	in := readers.Get().(*bufio.Reader)
	in.Reset(r)
	defer func() {
		in.Reset(nil)
		readers.Put(in)
	}()
	// begins: at the begin of a line. last: the octet before, within the line.
	begins, body := true, false
	var last byte
	for {
		if begins && body && lines >= 0 {
			if lines == 0 {
				break
			}
			lines--
		}
		part, err := in.ReadSlice('\n')
		if len(part) > 0 {
			if begins && part[0] == '.' {
				w.WriteByte('.')
			}
			line, ended := bytes.CutSuffix(part, []byte("\n"))
			body = body || begins && ended && (len(line) == 0 || string(line) == "\r")
			if len(line) > 0 {
				last = line[len(line)-1]
				w.Write(line)
			}
			begins = ended
			if ended {
				if err := endLine(w, last); err != nil {
					return err
				}
				last = 0
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
	if !begins {
		_ = endLine(w, last)
	}
	_, err := w.WriteString(".\r\n")
	return err
}

// endLine ends a line whose last octet was written; a bufio.Writer keeps its
// first error, so this tells of those before it too.
func endLine(w *bufio.Writer, last byte) error {
	if last != '\r' {
		w.WriteByte('\r')
	}
	return w.WriteByte('\n')
}
