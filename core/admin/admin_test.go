package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/core/queue"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// backend has the log of one instance; follow waits for lines on a channel.
type backend struct {
	Backend
	more     chan LogLine
	reloaded string
}

func (b *backend) ReloadPlugin(_ context.Context, instance string) error {
	if instance != "filter.test.a" {
		return errors.New("no plugin instance is called that")
	}
	b.reloaded = instance
	return nil
}

func (b *backend) PluginLogs(ctx context.Context, instance string, n int, follow bool, each func(LogLine) error, flush func()) error {
	if instance != "filter.test.a" {
		return errors.New("no plugin instance is called that")
	}
	for k := range n {
		if err := each(LogLine{Level: "info", PID: 7, Message: fmt.Sprint(k), Fields: map[string]json.RawMessage{"k": json.RawMessage("1")}}); err != nil {
			return err
		}
	}
	flush()
	for follow {
		select {
		case l, ok := <-b.more:
			if !ok {
				return errors.New("the instance is gone")
			}
			if err := each(l); err != nil {
				return err
			}
			flush()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func serve(t *testing.T) (*Client, *backend) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	b := &backend{more: make(chan LogLine)}
	s, err := Listen(path, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return NewClient(path), b
}

// What the server sends of a message's tags, the command line can read.
func TestTagsTravel(t *testing.T) {
	sent := FromEnvelope(&queue.Envelope{Tags: map[string]*v1.Tag{
		"spf":     {Value: &v1.Tag_Text{Text: "pass"}},
		"score":   {Value: &v1.Tag_Number{Number: 2.5}},
		"listed":  {Value: &v1.Tag_Flag{Flag: false}},
		"subject": {Value: &v1.Tag_List{List: &v1.TagList{Values: []string{"lottery", "urgent"}}}},
	}})
	b, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	var got Message
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if said, want := fmt.Sprint(got.Tags), "map[listed:false score:2.5 spf:pass subject:[lottery urgent]]"; said != want {
		t.Errorf("%s, want %s", said, want)
	}
}

func TestPluginLogs(t *testing.T) {
	c, b := serve(t)
	var got []LogLine
	collect := func(l LogLine) error { got = append(got, l); return nil }
	if err := c.PluginLogs(t.Context(), "filter.test.a", 3, false, collect); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[2].Message != "2" || got[2].PID != 7 || string(got[2].Fields["k"]) != "1" {
		t.Errorf("%+v", got)
	}
	if err := c.PluginLogs(t.Context(), "filter.test.b", 3, false, collect); err == nil || !strings.Contains(err.Error(), "no plugin instance") {
		t.Errorf("%v", err)
	}
	if err := c.PluginLogs(t.Context(), "filter.test.a", -1, false, collect); err == nil || !strings.Contains(err.Error(), "number of lines") {
		t.Errorf("%v", err)
	}

	// A line is there when it is written, not when the answer ends.
	lines, ended := make(chan LogLine), make(chan error, 1)
	go func() {
		ended <- c.PluginLogs(t.Context(), "filter.test.a", 0, true, func(l LogLine) error { lines <- l; return nil })
	}()
	for n := range 3 {
		b.more <- LogLine{Message: fmt.Sprint(n)}
		select {
		case l := <-lines:
			if l.Message != fmt.Sprint(n) {
				t.Errorf("%+v, want line %d", l, n)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a line did not come")
		}
	}
	close(b.more)
	if err := <-ended; err == nil || err.Error() != "the instance is gone" {
		t.Errorf("%v, want the server's reason", err)
	}

	// Who follows may go at any time.
	b.more = make(chan LogLine)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- c.PluginLogs(ctx, "filter.test.a", 0, true, collect) }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestReloadPlugin(t *testing.T) {
	c, b := serve(t)
	if err := c.Call(t.Context(), "POST", "/plugins/filter.test.a/reload", nil, &struct{}{}); err != nil || b.reloaded != "filter.test.a" {
		t.Errorf("%v, reloaded %q", err, b.reloaded)
	}
	if err := c.Call(t.Context(), "POST", "/plugins/filter.test.b/reload", nil, &struct{}{}); err == nil {
		t.Error("a plugin that is not there was reloaded")
	}
}
