package imap

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/wire"
)

// gathered is how many octets of replies wait for more before they go out.
const gathered = 32 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, gathered+8<<10); return &b }}

// output gathers replies and writes them when there are many, or when the client
// is waited for. An idle connection holds no buffer. Only the session's goroutine
// touches it; after a failed write it swallows everything.
type output struct {
	c      *conn
	pooled *[]byte
	b      []byte
	// utf8: the client takes UTF-8 in quoted strings and mailbox names.
	utf8 bool
	err  error
}

// open gets a buffer, if there is none.
func (o *output) open() {
	if o.pooled == nil {
		o.pooled = buffers.Get().(*[]byte)
		o.b = (*o.pooled)[:0]
	}
}

// raw writes text as it stands.
func (o *output) raw(text string) {
	o.open()
	o.b = append(o.b, text...)
}

func (o *output) printf(format string, args ...any) {
	o.open()
	o.b = fmt.Appendf(o.b, format, args...)
}

func (o *output) number(n uint64) { o.b = strconv.AppendUint(o.b, n, 10) }

// text writes a string, quoted or as a literal.
func (o *output) text(s string) { o.b = wire.AppendString(o.b, s, o.utf8) }

// mailbox writes a mailbox name as this client reads it.
func (o *output) mailbox(name string) {
	if name == inbox {
		o.b = append(o.b, inbox...)
		return
	}
	if !o.utf8 {
		name = wire.EncodeUTF7(name)
	}
	o.text(name)
}

// end ends a line.
func (o *output) end() {
	o.b = append(o.b, '\r', '\n')
	if len(o.b) >= gathered {
		o.send()
	}
}

// line writes a whole line.
func (o *output) line(format string, args ...any) {
	o.printf(format, args...)
	o.end()
}

// stream writes exactly size octets of r; an error of r's leaves the reply torn,
// and the connection must end.
func (o *output) stream(r io.Reader, size int64) error {
	for size > 0 && o.err == nil {
		if cap(o.b)-len(o.b) < 1024 || len(o.b) >= gathered {
			o.send()
		}
		room := o.b[len(o.b):cap(o.b)]
		n, err := r.Read(room[:min(int64(len(room)), size)])
		o.b = o.b[:len(o.b)+n]
		size -= int64(n)
		if err != nil && size > 0 {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("the message ends %d octets early", size)
			}
			return err
		}
	}
	return o.err
}

// send writes what was gathered and keeps the buffer.
func (o *output) send() {
	if len(o.b) > 0 && o.err == nil {
		o.c.raw.SetWriteDeadline(time.Now().Add(o.c.server.config.WriteTimeout))
		_, o.err = o.c.stream.Write(o.b)
	}
	o.b = o.b[:0]
}

// flush sends everything and gives the buffer back.
func (o *output) flush() error {
	if o.pooled == nil {
		return o.err
	}
	o.send()
	if f, ok := o.c.stream.(interface{ Flush() error }); ok && o.err == nil {
		o.c.raw.SetWriteDeadline(time.Now().Add(o.c.server.config.WriteTimeout))
		o.err = f.Flush()
	}
	if cap(o.b) <= 2*gathered {
		*o.pooled = o.b
		buffers.Put(o.pooled)
	}
	o.pooled, o.b = nil, nil
	return o.err
}
