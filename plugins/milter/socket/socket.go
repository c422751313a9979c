// Package socket reads where a mail filter listens, as Sendmail's and Postfix's
// configurations write it.
package socket

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// Parse reads unix: or local: and a path, inet: or inet6: and port@host or
// host:port, and gives what net.Dial takes. The error says what to write.
func Parse(s string) (network, address string, err error) {
	kind, rest, ok := strings.Cut(s, ":")
	if !ok {
		return "", "", fmt.Errorf("%q is no address: write unix:/path or inet:port@host", s)
	}
	switch kind {
	case "unix", "local":
		if !filepath.IsAbs(rest) {
			return "", "", fmt.Errorf("the socket's path %q must be absolute", rest)
		}
		if len(rest) > 103 {
			return "", "", fmt.Errorf("the socket's path has %d octets: at most 103 can be connected to", len(rest))
		}
		return "unix", rest, nil
	case "inet", "inet6":
		port, host, sendmail := strings.Cut(rest, "@")
		if !sendmail {
			if host, port, err = net.SplitHostPort(rest); err != nil {
				return "", "", fmt.Errorf("%q is no address: write inet:port@host or inet:host:port", s)
			}
		}
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return "", "", fmt.Errorf("%q is no port: write a number from 1 to 65535", port)
		}
		if host == "" {
			return "", "", fmt.Errorf("%q names no host: write inet:%s@localhost", s, port)
		}
		network = "tcp"
		if kind == "inet6" {
			network = "tcp6"
		}
		return network, net.JoinHostPort(host, port), nil
	}
	return "", "", fmt.Errorf("%q is no kind of socket: write unix:/path or inet:port@host", kind)
}
