package imap

import (
	"io"

	"github.com/emersion/go-imap/v2"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/deflate"
)

// compressed is a stream under compression.
type compressed struct {
	*deflate.Reader
	*deflate.Writer
	under io.ReadWriter
}

// Close closes what is under it.
func (c compressed) Close() error {
	if under, ok := c.under.(io.Closer); ok {
		return under.Close()
	}
	return nil
}

// compress is RFC 4978. It comes after the login, so that no password is
// compressed together with what others say.
func (ss *session) compress(cmd *command) error {
	cmd.p.SP()
	mechanism := cmd.p.Word()
	if err := cmd.end(); err != nil {
		return err
	}
	if ss.isCompressed() {
		return no("COMPRESSIONACTIVE", "DEFLATE is active already")
	}
	if mechanism != "DEFLATE" {
		return no(imap.ResponseCodeCannot, "Only DEFLATE is known")
	}
	if ss.in.Buffered() > 0 {
		ss.bye("Nothing may follow COMPRESS before its reply")
		return nil
	}
	ss.out.line("%s OK DEFLATE active", cmd.tag)
	if ss.out.flush() != nil {
		ss.ended = true
		return nil
	}
	ss.use(compressed{deflate.NewReader(ss.stream), deflate.NewWriter(ss.stream), ss.stream})
	return nil
}

func (ss *session) isCompressed() bool {
	_, is := ss.stream.(compressed)
	return is
}
