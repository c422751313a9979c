package srs_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/srs"
	"github.com/stagecoach-mta/stagecoach/sdk/address"
)

var day = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func forwarder(domain string, secrets ...string) *srs.Rewriter {
	return &srs.Rewriter{Domain: domain, Secrets: secrets, Age: 21 * 24 * time.Hour, Now: func() time.Time { return day }}
}

// TestThereAndBack: mail over three forwarders; a bounce goes to the last, from
// there to the first, and from there to the sender.
func TestThereAndBack(t *testing.T) {
	first, second, third := forwarder("ryan.example", "sleepless in seattle"), forwarder("reed.example", "you have got mail"), forwarder("cast.example", "joe and the volcano")
	for _, sender := range []string{
		"tom@hanks.example", "Tom+lists@Hanks.Example", "a=b=c@hanks.example", `"odd \"name\" here"@hanks.example`, "SRS0@hanks.example",
		"prvs=1=tom@hanks.example", "grüße@hanks.example", `"@"@hanks.example`,
	} {
		one := must(t)(first.Forward(sender))
		two := must(t)(second.Forward(one))
		three := must(t)(third.Forward(two))
		if !strings.HasPrefix(strings.TrimPrefix(three, `"`), "SRS1=") || !strings.HasSuffix(three, "@cast.example") || len(three) > len(two)+1 {
			t.Errorf("%s: %s, %s, %s", sender, one, two, three)
		}
		// On the way the letters may lose their case, but for the sender's own.
		for _, bounce := range []string{three, strings.Replace(three, "SRS1", "srs1", 1)} {
			back := must(t)(third.Reverse(bounce))
			if back != one {
				t.Errorf("%s: the bounce goes to %s, not to %s", sender, back, one)
			}
			if got := must(t)(first.Reverse(back)); got != sender && !sameAddress(got, sender) {
				t.Errorf("%s comes back as %s", sender, got)
			}
		}
		if again := must(t)(first.Forward(one)); again != one {
			t.Errorf("rewritten twice: %s", again)
		}
	}
	if got := must(t)(first.Forward("")); got != "" {
		t.Errorf("the null reverse-path became %q", got)
	}
	if _, err := first.Forward("no address"); err == nil {
		t.Error("no address is rewritten")
	}
}

func sameAddress(a, b string) bool {
	one, err1 := address.Parse(a, true)
	two, err2 := address.Parse(b, true)
	return err1 == nil && err2 == nil && one == two
}

func must(t *testing.T) func(string, error) string {
	return func(s string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestRefused(t *testing.T) {
	f := forwarder("ryan.example", "sleepless in seattle")
	good := must(t)(f.Forward("tom@hanks.example"))
	other := must(t)(forwarder("ryan.example", "sleepless in chicago").Forward("tom@hanks.example"))
	for recipient, want := range map[string]error{
		"meg@ryan.example": srs.ErrOther, "srs0@ryan.example": srs.ErrOther, "SRS0=x@reed.example": srs.ErrOther, "no address": srs.ErrOther,
		"SRS0=x@ryan.example": srs.ErrForged, "SRS0=aaaaaa=aa=hanks.example=tom@ryan.example": srs.ErrForged,
		"SRS1=aaaaaa=hanks.example==x@ryan.example": srs.ErrForged, other: srs.ErrForged,
		strings.Replace(good, "=tom@", "=joe@", 1):             srs.ErrForged,
		strings.Replace(good, "hanks.example", "a.example", 1): srs.ErrForged,
	} {
		if got, err := f.Reverse(recipient); !errors.Is(err, want) {
			t.Errorf("%s: %q %v, want %v", recipient, got, err, want)
		}
	}
	// The secret is changed: what the old one made is still taken.
	f.Secrets = []string{"another one of length", "sleepless in seattle"}
	must(t)(f.Reverse(good))
	f.Secrets = f.Secrets[:1]
	if _, err := f.Reverse(good); !errors.Is(err, srs.ErrForged) {
		t.Errorf("by a secret that is gone: %v", err)
	}
}

func TestExpiry(t *testing.T) {
	f := forwarder("ryan.example", "sleepless in seattle")
	for start := range 1024 { // the days wrap around
		made := day.AddDate(0, 0, start)
		f.Now = func() time.Time { return made }
		a := must(t)(f.Forward("tom@hanks.example"))
		for after, want := range map[int]error{0: nil, 21: nil, 22: srs.ErrExpired, 400: srs.ErrExpired, -1: srs.ErrExpired} {
			f.Now = func() time.Time { return made.AddDate(0, 0, after) }
			if _, err := f.Reverse(a); !errors.Is(err, want) {
				t.Fatalf("day %d, %d days on: %v, want %v", start, after, err, want)
			}
		}
	}
}

func FuzzReverse(f *testing.F) {
	fw := forwarder("ryan.example", "sleepless in seattle")
	for _, s := range []string{"tom@hanks.example", "SRS0=aaaaaa=aa=hanks.example=tom@ryan.example", "SRS1=aaaaaa=reed.example==x=y@ryan.example", `"SRS0+a=b c"@ryan.example`, "SRS1=a=b@reed.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := fw.Reverse(s); err == nil {
			t.Fatalf("%q was taken for %q", s, got)
		}
		forward, err := fw.Forward(s)
		if err != nil || forward == s {
			return
		}
		if _, err := address.Parse(forward, true); err != nil {
			if len(forward) > 254 {
				return
			}
			t.Fatalf("%q became %q: %v", s, forward, err)
		}
		back, err := fw.Reverse(forward)
		if err != nil {
			t.Fatalf("%q by %q: %v", s, forward, err)
		}
		if _, err := address.Parse(back, true); err != nil {
			t.Fatalf("%q came back as %q", s, back)
		}
	})
}
