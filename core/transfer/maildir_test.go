package transfer

import (
	"slices"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/maildir"
)

// TestSubscriptions: both forms of Dovecot's list are read.
func TestSubscriptions(t *testing.T) {
	for _, text := range []string{"INBOX\nLetters.Tom\nEntw&APw-rfe\n", "V\t2\n\nLetters\tTom\nEntw&APw-rfe\n"} {
		got, err := parseSubscriptions(strings.NewReader(text))
		if err != nil || len(got) != 3 || !got["Letters/Tom"] || !got["Entwürfe"] || !got[inbox] {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
}

// FuzzMaildir: any name of a file or folder, and any list of keywords, can be read;
// flags that are written are read again.
func FuzzMaildir(f *testing.F) {
	f.Add("1.x:2,FSab", ".Entw&APw-rfe.a%2Eb", "0 $Forwarded\n1 x\n")
	f.Add(":2,:2,", ".%", "25 z\n26 no\n-1 x")
	f.Fuzz(func(t *testing.T, file, folder, list string) {
		words, err := parseKeywords(strings.NewReader(list))
		if err == nil && len(words) > 26 {
			t.Fatalf("%d keywords", len(words))
		}
		flagsOf(file, words)
		bits, numbers := maildir.Info(file)
		again, same := maildir.Info(maildir.WithFlags(file, bits))
		if again != bits || !slices.Equal(numbers, same) {
			t.Fatalf("%q: %b %v became %b %v", file, bits, numbers, again, same)
		}
		if name, ok := maildir.Name(folder); ok && folder != "" {
			if levels, err := cleanName(strings.Split(name, "/")); err == nil && levels != inbox {
				if back, ok := maildir.Name(maildir.Folder(levels)); !ok || back != levels {
					t.Fatalf("%q is %q and then %q", folder, levels, back)
				}
			}
		}
		_, _ = parseSubscriptions(strings.NewReader(list))
	})
}
