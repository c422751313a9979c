package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/storage/simdisk"
)

// TestOrderOfIOAtOnce holds what a mail that is brought to its mailbox at once does
// to the disk before its 250, and what the queue does if the storage's answer is
// late, against testdata: a change of it is to be seen.
func TestOrderOfIOAtOnce(t *testing.T) {
	d := simdisk.New()
	log := d.Record()
	x, err := openSite(d, siteBugs{})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	step := func(what string, do func() error) {
		t.Helper()
		at := log.Len()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		fmt.Fprintf(&text, "%s\n", what)
		for _, op := range log.Ops(at) {
			s := op.String()
			if op.Kind == simdisk.Write {
				s = s[:strings.LastIndexByte(s, ' ')]
			}
			fmt.Fprintf(&text, "    %s\n", databaseFile.ReplaceAllString(s, "N"))
		}
	}
	mail := func(n int) *parcel {
		return &parcel{text: fmt.Sprintf("Subject: m%d\r\n\r\nhello\r\n", n), to: siteAccounts[:1]}
	}
	none := func() {}
	if err := x.pass(mail(0), false, none); err != nil { // the account comes into being
		t.Fatal(err)
	}
	step("a mail for a mailbox", func() error { return x.pass(mail(1), false, none) })
	step("the same when the storage's answer is late", func() error { return x.pass(mail(2), true, none) })
	step("what the queue makes of it", func() error {
		n, err := x.deliver(10)
		if err == nil && n != 1 {
			err = fmt.Errorf("%d mails were due", n)
		}
		return err
	})
	if err := x.close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "atonce-io.txt")
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := text.String(); got != string(want) {
		t.Errorf("the disk saw another order than %s has (-update writes it anew):\n%s", path, got)
	}
}

// databaseFile is a number that changes with the release of the database.
var databaseFile = regexp.MustCompile(`\d{6,}`)
