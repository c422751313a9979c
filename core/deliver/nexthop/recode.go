package nexthop

import (
	"context"
	"io"

	"github.com/emersion/go-smtp"

	"github.com/stagecoach-mta/stagecoach/core/deliver/recode"
	"github.com/stagecoach-mta/stagecoach/core/smtp/client"
)

// recoding is a message in the form that some server wanted, or why it has none.
// It holds for the whole attempt: other hosts may want the same.
type recoding struct {
	message *recode.Message
	err     error
}

// send does a transaction. A message that the server cannot take as it is goes
// encoded instead (RFC 6152 section 3, RFC 3030 section 3): nothing of it has
// left then.
func (d *delivery) send(ctx context.Context, c *conn, tx *client.Transaction) (*client.Result, error) {
	res, err := c.Send(ctx, tx)
	if err != nil || d.t.opts.NoRecoding || !wantsRecoding(res) {
		return res, err
	}
	form, body := recode.SevenBit, smtp.Body7Bit
	if _, ok := c.Extension("8BITMIME"); ok {
		form, body = recode.EightBit, smtp.Body8BitMIME
	}
	r := d.recoded(form)
	if r.err != nil {
		for i := range res.Recipients {
			if reply := &res.Recipients[i].Reply; res.Recipients[i].Phase == client.PhaseLocal {
				reply.Text += "; it cannot be encoded for it: " + r.err.Error()
			}
		}
		return res, nil
	}
	d.t.opts.Log.Debug().Str("id", d.m.QueueID).Str("host", c.hop.host).Str("body", string(body)).
		Msg("message encoded for a server without the extension")
	tx.Options.Body, tx.Size = body, r.message.Size()
	tx.Body = func() (io.ReadCloser, error) { return r.message.Open() }
	return c.Send(ctx, tx)
}

func wantsRecoding(res *client.Result) bool {
	for _, r := range res.Recipients {
		if r.Missing == "8BITMIME" || r.Missing == "BINARYMIME" {
			return true
		}
	}
	return false
}

func (d *delivery) recoded(form recode.Form) *recoding {
	if d.recodings[form] == nil {
		m, err := recode.New(d.m.Body, form)
		d.recodings[form] = &recoding{m, err}
	}
	return d.recodings[form]
}
