package protocol

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// replay is a connection on which a milter has said everything beforehand.
type replay struct{ r *bytes.Reader }

func (c replay) Read(p []byte) (int, error)     { return c.r.Read(p) }
func (replay) Write(p []byte) (int, error)      { return len(p), nil }
func (replay) Close() error                     { return nil }
func (replay) LocalAddr() net.Addr              { return nil }
func (replay) RemoteAddr() net.Addr             { return nil }
func (replay) SetDeadline(time.Time) error      { return nil }
func (replay) SetReadDeadline(time.Time) error  { return nil }
func (replay) SetWriteDeadline(time.Time) error { return nil }

func packet(code byte, data string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(data)+1))) + string(code) + data
}

// FuzzMilter: whatever a milter says, a session with it ends, and what it agreed to
// and changed keeps within what was offered.
func FuzzMilter(f *testing.F) {
	hello := packet('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\x80")
	plain := packet('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x00\x04\x00"+"\x00\x00\x00\x02i {auth_authen}\x00")
	all := strings.Repeat(packet('c', ""), 9)
	f.Add([]byte(hello + packet('h', "X-A\x001\x00") + packet('a', "")))
	f.Add([]byte(plain + all + packet('p', "") + packet('i', "\x00\x00\x00\x01X-A\x00a\n b\x00") + packet('m', "\x00\x00\x00\x01Subject\x00\x00") + packet('b', "new") + packet('c', "")))
	f.Add([]byte(plain + all + packet('+', "<meg@ryan.example>\x00") + packet('2', "<a@b>\x00NOTIFY=NEVER\x00") + packet('-', "<c@d>\x00") + packet('e', "<>\x00") + packet('q', "odd\x00") + packet('y', "550 5.7.1 no %%\x00")))
	f.Add([]byte(plain + packet('y', "421 4.7.0 bye\x00")))
	f.Add([]byte("\xff\xff\xff\xffO"))
	f.Add([]byte("\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, said []byte) {
		offer := Offer(AllActions, 1<<20)
		c, err := Open(replay{bytes.NewReader(said)}, offer, time.Hour, time.Time{})
		if err != nil {
			return
		}
		if c.Options.Actions&^offer.Actions != 0 || c.Options.Steps&^offer.Steps != 0 || c.Options.Version < oldest || c.Options.Version > Version {
			t.Fatalf("agreed was %+v", c.Options)
		}
		facts := Macros{"i": "q1", "j": "mx.ryan.example"}
		for _, step := range []func() (Answer, error){
			func() (Answer, error) { return c.Connect("mx.hanks.example", Inet, 25, "192.0.2.1", facts) },
			func() (Answer, error) { return c.Helo("mx.hanks.example", facts) },
			func() (Answer, error) { return c.Mail("tom@hanks.example", nil, facts) },
			func() (Answer, error) { return c.Rcpt("meg@ryan.example", nil, facts) },
			func() (Answer, error) { return c.Data(facts) },
			func() (Answer, error) { return c.Header("Subject", []byte(" Hello")) },
			func() (Answer, error) { return c.EOH(facts) },
			func() (Answer, error) { return c.Body(strings.NewReader("Hello")) },
		} {
			if a, err := step(); err != nil || a.Code == Progress || a.Code == Skip {
				if err == nil {
					t.Fatalf("%q ends a question", a.Code)
				}
				return
			}
		}
		a, changes, err := c.EndOfMessage(facts, 1000)
		if err != nil {
			return
		}
		if a.Code == Progress || a.Code == Skip {
			t.Fatalf("%q ends the message", a.Code)
		}
		size := 0
		for _, x := range changes {
			if c.Options.Actions&needs[x.Code] == 0 {
				t.Fatalf("%q was not agreed", x.Code)
			}
			size += len(x.Body) + len(x.Name) + len(x.Value) + len(x.Address) + len(x.Args) + len(x.Reason)
		}
		if size > 1000 {
			t.Fatalf("%d octets were taken", size)
		}
	})
}

// FuzzPacket: no packet is taken for more than it says, and none takes more memory
// than there are octets.
func FuzzPacket(f *testing.F) {
	f.Add([]byte(packet('h', "X-A\x001\x00")))
	f.Add([]byte("\x00\x10\x00\x00b"))
	f.Fuzz(func(t *testing.T, said []byte) {
		r := bufio.NewReader(bytes.NewReader(said))
		for {
			_, data, err := readPacket(r)
			if err != nil {
				return
			}
			if len(data) > len(said) {
				t.Fatalf("%d octets of %d", len(data), len(said))
			}
			if _, err := r.Peek(1); err == io.EOF {
				return
			}
		}
	})
}
