package server

import (
	"bufio"
	"net"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// readProxyHeader reads the PROXY header, version 1 or 2, that a proxy must send.
func (c *Conn) readProxyHeader() error {
	c.raw.SetReadDeadline(time.Now().Add(c.srv.HandshakeTimeout))
	// A header is at most 16 octets and addresses; longer ones carry TLVs, up to 64 KiB.
	br := bufio.NewReaderSize(c.raw, 512)
	h, err := proxyproto.Read(br)
	if err != nil {
		return err
	}
	c.raw.SetReadDeadline(time.Time{})
	c.readBy = time.Time{}
	// A health check of the proxy itself (LOCAL, UNKNOWN) keeps the proxy's address.
	if h.Command.IsProxy() && h.SourceAddr != nil && h.DestinationAddr != nil {
		c.setAddrs(h.SourceAddr, h.DestinationAddr)
	}
	if rest, _ := br.Peek(br.Buffered()); len(rest) > 0 {
		if c.srv.ImplicitTLS {
			c.nc = &prefixConn{c.raw, rest}
			return nil
		}
		c.in.takeBlock()
		c.in.w = copy(c.in.block[:], rest)
	}
	return nil
}

// prefixConn reads what came behind the PROXY header first.
type prefixConn struct {
	net.Conn
	prefix []byte
}

func (p *prefixConn) Read(b []byte) (int, error) {
	if len(p.prefix) > 0 {
		n := copy(b, p.prefix)
		p.prefix = p.prefix[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
