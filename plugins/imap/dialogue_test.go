package imap_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDialogues plays testdata/*.txt. "C: " is said, "S: " must be the next
// line, where "…" stands for anything; "M: " is a line of a mail that is in the
// inbox before, "M:" alone its empty line, "--" ends it.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := start(t, true, nil)
			var c *raw
			mail := ""
			for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
				kind, rest, _ := strings.Cut(line, ":")
				rest = strings.TrimPrefix(rest, " ")
				switch kind {
				case "M":
					mail += rest + "\r\n"
				case "--":
					s.deposit(mail)
					mail = ""
				case "C":
					if c == nil {
						c = s.raw(true)
					}
					c.say(rest + "\r\n")
				case "S":
					pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(rest), "…", ".*") + "$"
					if got := c.line(); !regexp.MustCompile(pattern).MatchString(got) {
						t.Fatalf("%s:%d: got  %s\nwant %s", file, i+1, got, rest)
					}
				}
			}
		})
	}
}
