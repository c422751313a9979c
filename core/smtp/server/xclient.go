package server

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

// XClient is what a trusted proxy told of the client by Postfix's XCLIENT
// (https://www.postfix.org/XCLIENT_README.html), beyond what Conn's other methods
// give: an empty string is unknown.
type XClient struct {
	Name  string // reverse DNS name of the client
	Helo  string // of the client's own EHLO or HELO
	Proto string // SMTP or ESMTP
}

// XClient is zero unless XCLIENT was used.
func (c *Conn) XClient() XClient { return c.xclient }

// xclientCommand is the XCLIENT command. The client becomes another one: the
// Session is closed and the Backend asked anew, as on connect.
func (c *Conn) xclientCommand(arg string) {
	switch {
	case !c.xclientOK:
		c.fail(550, smtp.EnhancedCode{5, 7, 0}, "XCLIENT is not for you")
		return
	case c.tx.open:
		c.fail(503, smtp.EnhancedCode{5, 5, 1}, "XCLIENT comes before MAIL")
		return
	case arg == "":
		c.fail(501, smtp.EnhancedCode{5, 5, 4}, "XCLIENT needs attributes")
		return
	}
	x := xclientAttrs{XClient: c.xclient, login: c.authUser, remote: addrPort(c.remote), local: addrPort(c.local)}
	for _, word := range strings.Fields(arg) {
		if !x.set(word) {
			c.fail(501, smtp.EnhancedCode{5, 5, 4}, "Bad attribute "+word)
			return
		}
	}
	c.xclient, c.authUser = x.XClient, x.login
	c.hello = Hello{}
	c.setAddrs(tcpAddr(x.remote, c.remote), tcpAddr(x.local, c.local))
	before := c.session
	c.session = nil
	before.Close()
	c.srv.dismiss(c)
	if !c.srv.admit(c) {
		c.write(c.tooManyOfYou())
		c.closing = true
		return
	}
	if !c.greet(false) {
		c.closing = true
	}
}

type xclientAttrs struct {
	XClient
	login         string
	remote, local netip.AddrPort
}

// set takes one NAME=value.
func (x *xclientAttrs) set(word string) bool {
	key, value, ok := strings.Cut(word, "=")
	value, err := decodeXtext(value)
	if !ok || err != nil || !isPrintable(value) {
		return false
	}
	if value == "[UNAVAILABLE]" || value == "[TEMPUNAVAIL]" {
		value = ""
	}
	switch strings.ToUpper(key) {
	case "NAME":
		x.Name = value
	case "HELO":
		x.Helo = value
	case "PROTO":
		x.Proto = value
	case "LOGIN":
		x.login = value
	case "ADDR":
		return setIP(&x.remote, value)
	case "DESTADDR":
		return setIP(&x.local, value)
	case "PORT":
		return setPort(&x.remote, value)
	case "DESTPORT":
		return setPort(&x.local, value)
	default:
		return false
	}
	return true
}

func setIP(a *netip.AddrPort, s string) bool {
	if s == "" {
		*a = netip.AddrPortFrom(netip.Addr{}, a.Port())
		return true
	}
	if len(s) > 5 && strings.EqualFold(s[:5], "IPV6:") {
		s = s[5:]
	}
	ip, err := netip.ParseAddr(s)
	*a = netip.AddrPortFrom(ip.Unmap(), a.Port())
	return err == nil && ip.Zone() == ""
}

func setPort(a *netip.AddrPort, s string) bool {
	if s == "" {
		s = "0"
	}
	n, err := strconv.ParseUint(s, 10, 16)
	*a = netip.AddrPortFrom(a.Addr(), uint16(n))
	return err == nil
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// tcpAddr keeps old where nothing was told. An address told to be unknown is 0.0.0.0.
func tcpAddr(a netip.AddrPort, old net.Addr) net.Addr {
	if a == addrPort(old) {
		return old
	}
	if !a.Addr().IsValid() {
		a = netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port())
	}
	return net.TCPAddrFromAddrPort(a)
}
