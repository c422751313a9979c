package schema

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of octets. In HCL it is a string such as "25MB" or "64KiB",
// or a plain number of octets.
type Size int64

// String writes the size with the largest unit that leaves no fraction.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if u.short && s != 0 && int64(s)%u.octets == 0 {
			return strconv.FormatInt(int64(s)/u.octets, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// sizeUnits, largest first. KB and KiB are both 1024 octets: that is what mail
// servers' limits have always meant.
var sizeUnits = []struct {
	name   string
	octets int64
	short  bool
}{
	{"TIB", 1 << 40, false}, {"GIB", 1 << 30, false}, {"MIB", 1 << 20, false}, {"KIB", 1 << 10, false},
	{"TB", 1 << 40, true}, {"GB", 1 << 30, true}, {"MB", 1 << 20, true}, {"KB", 1 << 10, true},
	{"T", 1 << 40, false}, {"G", 1 << 30, false}, {"M", 1 << 20, false}, {"K", 1 << 10, false},
	{"B", 1, false}, {"", 1, false},
}

// ParseSize reads "25MB", "64KiB", "1.5G" or "1000"; units are powers of 1024,
// without regard to case.
func ParseSize(s string) (Size, error) {
	t := strings.ToUpper(strings.TrimSpace(s))
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(t, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		if err != nil || !(n >= 0) || n*float64(u.octets) >= math.MaxInt64 {
			break
		}
		return Size(n * float64(u.octets)), nil
	}
	return 0, fmt.Errorf("%q is not a size: write a number with KB, MB or GB, such as \"25MB\"", s)
}

// ParseDuration reads "90s", "2m", "1h30m", "5d" or "1w": time.ParseDuration
// with days of 24 hours and weeks. Negative ones are refused.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration: write a number with s, m, h or d, such as \"2m\"", s)
	var total time.Duration
	rest := strings.TrimSpace(s)
	for _, u := range []struct {
		name string
		span time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		digits, after, ok := strings.Cut(rest, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(digits, 64)
		if err != nil || !(n >= 0) || n*float64(u.span)+float64(total) >= math.MaxInt64 {
			return 0, bad
		}
		total += time.Duration(n * float64(u.span))
		if rest = after; rest == "" {
			return total, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || total+d < 0 {
		return 0, bad
	}
	return total + d, nil
}

// FormatDuration writes d as ParseDuration reads it, without zero parts: "2m",
// "5d".
func FormatDuration(d time.Duration) string {
	if d > 0 && d%(24*time.Hour) == 0 {
		return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
