package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
)

var durationUnits = map[string]time.Duration{
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour,
	"d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
}

const durationRemedy = `Write a number and a unit: "30s", "15m", "3h", "5d", "2w", or "1h30m".`

// ParseDuration reads a duration as the files have it: "90s", "1h30m", "5d".
func ParseDuration(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q %w; write a number and a unit, such as 30m, 3h or 5d", s, err)
	}
	return d, nil
}

// parseDuration reads "90s", "1h30m", "5d". No sign: none of ours may be negative.
func parseDuration(s string) (time.Duration, error) {
	rest, total := strings.TrimSpace(s), time.Duration(0)
	if rest == "0" {
		return 0, nil
	}
	if rest == "" {
		return 0, errors.New("is empty")
	}
	for rest != "" {
		number, unit, after := cutNumber(rest)
		n, err := strconv.ParseFloat(number, 64)
		u, ok := durationUnits[unit]
		switch {
		case err != nil:
			return 0, errors.New("is no duration")
		case unit == "":
			return 0, errors.New("has no unit")
		case !ok:
			return 0, fmt.Errorf("has an unknown unit %q", unit)
		}
		if f := n*float64(u) + float64(total); f > math.MaxInt64/2 {
			return 0, errors.New("is too long")
		}
		total += time.Duration(n * float64(u))
		rest = after
	}
	return total, nil
}

// cutNumber splits "30m15s" into "30", "m" and "15s".
func cutNumber(s string) (number, unit, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if i < 0 {
		return s, "", ""
	}
	number, s = s[:i], s[i:]
	if i = strings.IndexFunc(s, func(r rune) bool { return !unicode.IsLetter(r) }); i < 0 {
		return number, s, ""
	}
	if i == 0 {
		return "", s, ""
	}
	return number, s[:i], s[i:]
}

// sizeUnits are powers of 1024 with and without the "i": that is what mail
// programs mean by MB, and what the plugins' schema reads.
var sizeUnits = map[string]float64{
	"": 1, "B": 1, "K": 1 << 10, "KB": 1 << 10, "KIB": 1 << 10, "M": 1 << 20, "MB": 1 << 20, "MIB": 1 << 20,
	"G": 1 << 30, "GB": 1 << 30, "GIB": 1 << 30, "T": 1 << 40, "TB": 1 << 40, "TIB": 1 << 40,
}

const sizeRemedy = `Write a number and a unit: "512KB", "25MB", "1GB"; without a unit it is octets.`

// parseSize reads "25MB", "512KiB" or a plain number of octets.
// ParseSize reads a size as the files have it, in octets: "10MB", "512 KiB".
func ParseSize(s string) (int64, error) {
	n, err := parseSize(s)
	if err != nil {
		return 0, fmt.Errorf("%q %w; write a number and a unit, such as 10MB", s, err)
	}
	return n, nil
}

func parseSize(s string) (int64, error) {
	number, unit, rest := cutNumber(strings.ReplaceAll(strings.TrimSpace(s), " ", ""))
	n, err := strconv.ParseFloat(number, 64)
	factor, ok := sizeUnits[strings.ToUpper(unit)]
	switch {
	case err != nil || rest != "":
		return 0, errors.New("is no size")
	case !ok:
		return 0, fmt.Errorf("has an unknown unit %q", unit)
	case n*factor > math.MaxInt64/2:
		return 0, errors.New("is too large")
	}
	return int64(n * factor), nil
}

const prefixRemedy = `Write a network: "192.0.2.0/24", "2001:db8::/32", or one address.`

const listenRemedy = `Write ":25", "127.0.0.1:2525", "[::1]:2525", "tls://:993" (TLS from the first byte), "tcp://:465" (plain start) or "unix:///run/lmtp.sock".`

// implicitPorts are TLS from the first byte (RFC 8314 section 7.3, RFC 8314 section 3).
var implicitPorts = map[string]bool{"465": true, "993": true, "995": true}

func parseListen(s string) (Listen, error) {
	scheme, rest, has := strings.Cut(s, "://")
	if !has {
		scheme, rest = "", s
	}
	if scheme == "unix" {
		if !strings.HasPrefix(rest, "/") {
			return Listen{}, errors.New("names no absolute path")
		}
		return Listen{Network: "unix", Address: rest}, nil
	}
	if scheme != "" && scheme != "tcp" && scheme != "tls" {
		return Listen{}, fmt.Errorf("begins with an unknown %q", scheme+"://")
	}
	host, port, err := splitHostPort(rest)
	if err != nil {
		return Listen{}, err
	}
	if _, err := netip.ParseAddr(host); host != "" && host != "localhost" && err != nil {
		return Listen{}, fmt.Errorf("has %q where an address of this machine must stand", host)
	}
	return Listen{
		Network: "tcp", Address: net.JoinHostPort(host, port),
		ImplicitTLS: scheme == "tls" || scheme == "" && implicitPorts[port],
	}, nil
}

func splitHostPort(s string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(s)
	if err != nil {
		if _, e := strconv.Atoi(s); e == nil {
			return "", "", fmt.Errorf("lacks the colon before the port: %q", ":"+s)
		}
		return "", "", errors.New("has no port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && port != "0" {
		return "", "", fmt.Errorf("has a port %q, which is not between 1 and 65535", port)
	}
	return host, port, nil
}

// parseDomain reads a domain name, with ".example" for all names below it.
func parseDomain(s string) error {
	name := strings.TrimPrefix(s, ".")
	if name == "" || len(name) > 253 {
		return errors.New("is no domain name")
	}
	for _, label := range strings.Split(name, ".") {
		if label == "" || len(label) > 63 || strings.ContainsAny(label, " @/:*\"<>()[],;\\") ||
			strings.ContainsFunc(label, unicode.IsControl) {
			return errors.New("is no domain name")
		}
	}
	return nil
}

func parseSHA256(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "sha256:"))
	if err != nil || len(b) != 32 {
		return nil, errors.New("is no SHA-256 sum")
	}
	return b, nil
}
