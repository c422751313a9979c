package config

import (
	"testing"
	"time"
)

const limited = `
queue {
  source "*" {
    rate = "500/1h"
  }
  source "hanks.example" {
    deliveries = 20
  }
  source "news@hanks.example" {
    rate       = "20000/d"
    deliveries = 10
  }
  source "printer" {
    rate = "5/1m"
  }
}
deliver "smtp" "internet" {
  rate = "600/1m"
  destination "reed.example" {
    connections = 5
    rate        = "100/1m"
  }
  destination ".reed.example" {
    connections = 3
  }
}
route "away" {
  when    = recipient.domain != "ryan.example"
  deliver = deliver.smtp.internet
}
`

func TestLimits(t *testing.T) {
	cfg, diags := load(t, map[string]string{"a.hcl": limited, "rest.hcl": restOf(t)}, "a.hcl", "rest.hcl")
	if diags.HasErrors() {
		t.Fatal(render(t, diags))
	}
	for _, c := range []struct {
		sender, user string
		key          string
		match        string
	}{
		{"meg@ryan.example", "", "meg@ryan.example", "*"},
		{"Meg@ryan.example", "meg", "meg", "*"},
		{"tom@Hanks.example", "", "hanks.example", "hanks.example"},
		{"joe@hanks.example", "joe", "hanks.example", "hanks.example"},
		{"news@hanks.example", "joe", "news@hanks.example", "news@hanks.example"},
		{"news@hanks.example", "Printer", "printer", "printer"},
		{"", "", "", ""},
	} {
		key, limit := cfg.Queue.Source(c.sender, c.user)
		match := ""
		if limit != nil {
			match = limit.Match
		}
		if limit != cfg.Queue.SourceLimit(key) {
			t.Errorf("%q has another limit", key)
		}
		if key != c.key || match != c.match {
			t.Errorf("%q sent by %q: counted by %q, limit %q; want %q, %q", c.sender, c.user, key, match, c.key, c.match)
		}
	}
	if s := cfg.Queue.Sources[2]; s.Deliveries != 10 || s.Rate != (Rate{20000, 24 * time.Hour}) {
		t.Errorf("%+v", s)
	}
	hop := cfg.Delivers[0].SMTP
	for domain, want := range map[string]Destination{
		"ryan.example":       {Rate: Rate{600, time.Minute}},
		"reed.example":       {Connections: 5, Rate: Rate{100, time.Minute}},
		"lists.reed.example": {Connections: 3, Rate: Rate{600, time.Minute}},
		"unreed.example":     {Rate: Rate{600, time.Minute}},
	} {
		if got := hop.Limit(domain); got.Connections != want.Connections || got.Rate != want.Rate {
			t.Errorf("%s: %+v, want %+v", domain, got, want)
		}
	}
}
