// Command audit is a Stagecoach filter that observes: it writes a line of JSON
// for all that happens to mail, once each, whatever crashes. It is a plugin as an
// outsider writes one: it knows the SDK and nothing else of Stagecoach. It judges
// nothing and holds nobody up.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Config is the block: filter "audit" "book" { refusals = false }
type Config struct {
	Refusals bool `hcl:"refusals,optional" doc:"Also write what was refused before it became a mail."`
}

var plugin = sdk.Plugin{
	Name: "audit", Version: "1.0.0", Summary: "Writes a line for all that happens to mail",
	Config: Config{Refusals: true},
	Interest: &v1.FilterInterest{
		Events: []v1.FilterEvent{v1.FilterEvent_OBSERVE}, Effect: v1.FilterInterest_OBSERVE_ONLY,
	},
	// Two processes that write one book would write over each other's lines.
	Needs: &v1.Needs{DataDir: true, Exclusive: true},
	Filter: func(_ context.Context, in *sdk.Instance) (filter.Filter, error) {
		return open(filepath.Join(in.DataDir, "audit.jsonl"), in.Config.(*Config), in.Metrics)
	},
}

func main() { sdk.Serve(plugin) }

// line is what is written of one observation.
type line struct {
	Sequence uint64    `json:"sequence"`
	At       time.Time `json:"at"`
	What     string    `json:"what"`
	QueueID  string    `json:"queue_id,omitempty"`
	From     string    `json:"from"`
	To       []string  `json:"to,omitempty"`
	Client   string    `json:"client,omitempty"`
	By       string    `json:"by,omitempty"`
	Code     int32     `json:"code,omitempty"`
	Reply    string    `json:"reply,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}

// book is the file, which only grows.
type book struct {
	config  *Config
	written *sdk.Value

	mu   sync.Mutex
	file *os.File
	last uint64 // sequence of the last line
}

var _ filter.Filter = (*book)(nil)

// open finds out where an earlier process came to, and cuts off the line in the
// middle of which it died.
func open(path string, config *Config, metrics *sdk.Metrics) (*book, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	b := &book{config: config, written: metrics.Counter("lines_total", "Lines written."), file: f}
	whole, err := b.read()
	if err == nil {
		err = f.Truncate(whole)
	}
	if err == nil {
		_, err = f.Seek(whole, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return b, nil
}

// read returns the length of the whole lines and remembers the last sequence.
func (b *book) read() (whole int64, err error) {
	r := bufio.NewReader(b.file)
	for {
		text, err := r.ReadBytes('\n')
		if err == io.EOF {
			return whole, nil
		}
		if err != nil {
			return 0, err
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return 0, fmt.Errorf("%s at octet %d: %w", b.file.Name(), whole, err)
		}
		whole += int64(len(text))
		b.last = max(b.last, l.Sequence)
	}
}

// Filter writes the observations that are not there yet. Its answer says that
// they are on the disk: what it does not take comes again.
func (b *book) Filter(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var text bytes.Buffer
	last, n := b.last, int64(0)
	for _, o := range ev.Observations {
		if o.GetSequence() <= last {
			continue
		}
		last = o.GetSequence()
		if o.GetWhat() == v1.Observation_REFUSED && !b.config.Refusals {
			continue
		}
		if err := json.NewEncoder(&text).Encode(written(o)); err != nil {
			return nil, err
		}
		n++
	}
	begin, err := b.file.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = b.file.Write(text.Bytes())
	}
	if err == nil {
		err = b.file.Sync()
	}
	if err != nil {
		// Half a line would spoil the next one.
		_ = b.file.Truncate(begin)
		_, _ = b.file.Seek(begin, io.SeekStart)
		return nil, err
	}
	b.last = last
	b.written.Add(n)
	return filter.Accept(), nil
}

func written(o *v1.Observation) line {
	l := line{
		Sequence: o.GetSequence(), At: time.UnixMilli(o.GetAtMs()).UTC(), What: o.GetWhat().String(),
		QueueID: o.GetEnvelope().GetQueueId(), From: o.GetEnvelope().GetSender(), Client: o.GetEnvelope().GetClient().GetIp(),
		By: o.GetBy(), Code: o.GetResult().GetReply().GetCode(), Reply: o.GetResult().GetReply().GetText(), Reason: o.GetReason(),
	}
	for _, r := range o.GetEnvelope().GetRecipients() {
		if o.GetRecipient() < 0 || r.GetIndex() == o.GetRecipient() {
			l.To = append(l.To, r.GetAddress())
		}
	}
	return l
}

// Close is the end of the instance.
func (b *book) Close() error { return b.file.Close() }
