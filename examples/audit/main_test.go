package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func happened(sequence uint64, what v1.Observation_What) *v1.Observation {
	return &v1.Observation{
		Sequence: sequence, What: what, Recipient: -1, By: "receive.smtp.mx",
		Envelope: &v1.Envelope{QueueId: "Q1", Sender: "tom@hanks.example", Recipients: []*v1.Recipient{{Address: "meg@ryan.example"}}},
	}
}

func tell(t *testing.T, b *book, os ...*v1.Observation) {
	t.Helper()
	if _, err := b.Filter(context.Background(), &filter.Event{Kind: v1.FilterEvent_OBSERVE, Observations: os}); err != nil {
		t.Fatal(err)
	}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// The same observation comes again after a crash; a line that was torn by it is
// written anew.
func TestOnceEach(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	config := &Config{Refusals: true}
	b, err := open(path, config, new(sdk.Metrics))
	if err != nil {
		t.Fatal(err)
	}
	tell(t, b, happened(7, v1.Observation_QUEUED), happened(9, v1.Observation_DELIVERED))
	tell(t, b, happened(9, v1.Observation_DELIVERED), happened(12, v1.Observation_REFUSED))
	b.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err = open(path, config, new(sdk.Metrics)); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	tell(t, b, happened(9, v1.Observation_DELIVERED), happened(12, v1.Observation_REFUSED))
	if again, _ := os.ReadFile(path); string(again) != string(whole) {
		t.Errorf("after a crash the book says\n%s\nwant\n%s", again, whole)
	}
	if n := len(lines(t, path)); n != 3 {
		t.Errorf("%d lines", n)
	}
}

func TestWithoutRefusals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	b, err := open(path, &Config{}, new(sdk.Metrics))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	tell(t, b, happened(1, v1.Observation_REFUSED), happened(2, v1.Observation_QUEUED))
	if got := lines(t, path); len(got) != 1 || !strings.Contains(got[0], `"QUEUED"`) || !strings.Contains(got[0], `"to":["meg@ryan.example"]`) {
		t.Errorf("the book says %q", got)
	}
}

func TestForeignFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, []byte("not a book\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(path, &Config{}, new(sdk.Metrics)); err == nil || !strings.Contains(err.Error(), "octet 0") {
		t.Errorf("a file that is no book: %v", err)
	}
}
