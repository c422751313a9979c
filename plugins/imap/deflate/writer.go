package deflate

import (
	"compress/flate"
	"io"
	"sync"
)

// compressors are lent for one burst of replies: a connection that waits holds
// none of their memory. What follows a flush refers to nothing before it, which
// costs some compression and no correctness.
var compressors = sync.Pool{New: func() any {
	w, err := flate.NewWriter(io.Discard, flate.BestSpeed)
	if err != nil {
		panic(err) // Not for a level that there is.
	}
	return w
}}

// Writer compresses.
type Writer struct {
	to io.Writer
	w  *flate.Writer
}

// NewWriter to a stream.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to} }

// Write compresses p; it need not go out before Flush.
func (w *Writer) Write(p []byte) (int, error) {
	if w.w == nil {
		w.w = compressors.Get().(*flate.Writer)
		w.w.Reset(w.to)
	}
	return w.w.Write(p)
}

// Flush sends all that was written.
func (w *Writer) Flush() error {
	if w.w == nil {
		return nil
	}
	err := w.w.Flush()
	compressors.Put(w.w)
	w.w = nil
	return err
}
