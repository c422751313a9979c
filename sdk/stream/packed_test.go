package stream

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// TestPackedIsAFrame: what is packed are the octets that protobuf makes of the
// Frame, whatever packs it for gRPC.
func TestPackedIsAFrame(t *testing.T) {
	for _, size := range []int{0, 1, 127, 128, 1000, 20_000, 200_000} {
		for _, id := range []uint64{1, 127, 128, 1 << 40, math.MaxUint64} {
			for _, deadline := range []int64{0, 1, 30_000, math.MaxInt64, -1} {
				call := ask(strings.Repeat("x", size))
				p, err := pack(call)
				if err != nil {
					t.Fatal(err)
				}
				p.address(id, callTag, deadline)
				call.DeadlineMs = deadline
				isFrame(t, p, &v1.Frame{Id: id, Body: &v1.Frame_Call{Call: call}})

				reply := answer(strings.Repeat("x", size))
				if p, err = pack(reply); err != nil {
					t.Fatal(err)
				}
				p.address(id, replyTag, 0)
				isFrame(t, p, &v1.Frame{Id: id, Body: &v1.Frame_Reply{Reply: reply}})
			}
		}
	}
	empty, err := pack(&v1.Reply{})
	if err != nil {
		t.Fatal(err)
	}
	empty.address(7, replyTag, 0)
	isFrame(t, empty, &v1.Frame{Id: 7, Body: &v1.Frame_Reply{Reply: &v1.Reply{}}})
	cancel := &v1.Frame{Id: 9, Body: &v1.Frame_Cancel{Cancel: &v1.Cancel{}}}
	isFrame(t, packFrame(cancel), cancel)
	credit := &v1.Frame{Body: &v1.Frame_Credit{Credit: &v1.Credit{Delta: -64}}}
	isFrame(t, packFrame(credit), credit)
}

func isFrame(t *testing.T, p *packed, want *v1.Frame) {
	t.Helper()
	defer p.free()
	octets, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := proto.Marshal(p)
	if err != nil || !bytes.Equal(got, octets) || proto.Size(p) != len(octets) {
		t.Errorf("%d octets of size %d, want %d: %v", len(got), proto.Size(p), len(octets), err)
	}
	u := newUnpacked()
	if err := proto.Unmarshal(got, u); err != nil || !proto.Equal(u.frame(), want) {
		t.Errorf("came back as %v, %v", u.frame(), err)
	}
}

// frame is u as a Frame.
func (u *unpacked) frame() *v1.Frame {
	f := &v1.Frame{Id: u.id}
	switch {
	case u.call != nil:
		f.Body = &v1.Frame_Call{Call: u.call}
	case u.reply != nil:
		f.Body = &v1.Frame_Reply{Reply: u.reply}
	case u.cancel != nil:
		f.Body = &v1.Frame_Cancel{Cancel: u.cancel}
	case u.credit != nil:
		f.Body = &v1.Frame_Credit{Credit: u.credit}
	}
	return f
}

// FuzzUnpacked: a frame of anybody's is read as protobuf reads it.
func FuzzUnpacked(f *testing.F) {
	add := func(frames ...*v1.Frame) {
		var all []byte
		for _, fr := range frames {
			b, err := proto.Marshal(fr)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
			all = append(all, b...)
		}
		f.Add(all)
		f.Add(all[:len(all)-1])
		f.Add(protowire.AppendVarint(protowire.AppendTag(all, 99, protowire.VarintType), 5))
	}
	add(&v1.Frame{Id: 1, Body: &v1.Frame_Call{Call: ask("meg")}}, &v1.Frame{Id: 2, Body: &v1.Frame_Call{Call: &v1.Call{DeadlineMs: 5}}})
	add(&v1.Frame{Id: 1, Body: &v1.Frame_Reply{Reply: answer("meg")}}, &v1.Frame{Body: &v1.Frame_Cancel{Cancel: &v1.Cancel{}}})
	add(&v1.Frame{Body: &v1.Frame_Credit{Credit: &v1.Credit{Delta: -4}}}, &v1.Frame{Body: &v1.Frame_Credit{Credit: &v1.Credit{Delta: 4}}})
	f.Add([]byte{0x0a, 0x01, 0x00})       // an id that is no number
	f.Add([]byte{0x12, 0x02, 0x9a, 0x01}) // a call that is cut
	f.Fuzz(func(t *testing.T, b []byte) {
		want, u := &v1.Frame{}, newUnpacked()
		wantErr, err := proto.Unmarshal(b, want), proto.Unmarshal(b, u)
		if (wantErr == nil) != (err == nil) {
			t.Fatalf("%v, protobuf says %v", err, wantErr)
		}
		if err != nil {
			return
		}
		want.ProtoReflect().SetUnknown(nil)
		if got := u.frame(); !proto.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}
