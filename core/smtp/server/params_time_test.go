package server

import (
	"strconv"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// FuzzTimes: what is taken of MT-PRIORITY, BY, HOLDFOR and HOLDUNTIL is within its
// limits, and says what was written.
func FuzzTimes(f *testing.F) {
	for _, s := range []string{
		"0", "-9", "9", "-0", "+1", "10", "", "60;R", "60;RT", "-60;nt", "+999999999;N", "1;", ";R", "0;R", "-1;R", "60;R;T",
		"3600", "0000", "999999999", "1234567890", "2026-11-26T10:00:00Z", "2026-11-26t10:00:00.5+01:00", "2026-11-26", "9999-12-31T23:59:60Z",
	} {
		f.Add(s)
	}
	c := &Conn{srv: New(Config{MinDeliverBy: time.Minute, MaxHold: time.Hour}, nil)}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parsePriority(s); err == nil && (n < -9 || n > 9 || strconv.Itoa(n) != s) {
			t.Errorf("MT-PRIORITY=%q is %d", s, n)
		}
		if by, err := c.parseBy(s); err == nil {
			most := 999999999 * time.Second
			if by.Time > most || by.Time < -most || by.Mode != smtp.DeliverByNotify && (by.Mode != smtp.DeliverByReturn || by.Time < time.Minute) {
				t.Errorf("BY=%q is %+v", s, by)
			}
		}
		for _, key := range []string{"HOLDFOR", "HOLDUNTIL"} {
			at, err := c.parseHold(key, s)
			if err == nil && at.After(time.Now().Add(time.Hour)) {
				t.Errorf("%s=%q holds until %s", key, s, at)
			}
			if n, bad := strconv.Atoi(s); key == "HOLDFOR" && err == nil && (bad != nil || n < 1 || n > 3600) {
				t.Errorf("HOLDFOR=%q was taken", s)
			}
		}
	})
}
