package demo

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// A step that fails takes the steps that build on it along, and no more; all of
// them count.
func TestAFailedStepSkipsItsChapter(t *testing.T) {
	var out strings.Builder
	s := &story{Options: Options{Out: &out}}
	var done []string
	says := func(word string, err error) step {
		return step{word, func(context.Context) (string, error) {
			done = append(done, word)
			return word, err
		}}
	}
	if err := s.tell(t.Context(), []chapter{
		{"one", []step{says("a", nil), says("b", errors.New("it broke")), says("c", nil)}},
		{"two", []step{says("d", nil)}},
	}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(done, " "); got != "a b d" {
		t.Errorf("done: %s", got)
	}
	if s.result.Steps != 4 || s.result.Held != 2 {
		t.Errorf("%+v", s.result)
	}
	if want := "\none\n  ok      a: a\n  FAILED  b: it broke\n  skipped c\n\ntwo\n  ok      d: d\n\n2 of 4 steps held.\n"; out.String() != want {
		t.Errorf("it says\n%s", out.String())
	}
}

func TestQueueID(t *testing.T) {
	for said, want := range map[string]string{"Queued as 13uBbUqca5h": "13uBbUqca5h", "": ""} {
		if got := queueID(said); got != want {
			t.Errorf("%q: %q", said, got)
		}
	}
}
