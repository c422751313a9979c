package storage

import (
	"context"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// batchSize is how many octets of fetched items travel in one reply, so that a
// listing of a large mailbox costs few frames and never a large one. With what
// stands around them it is below 32 KiB: for a larger message gRPC takes a buffer
// of 1 MiB, which it clears each time (mem.DefaultBufferPool).
const batchSize = 31 << 10

// EncodedFetcher is an Account that keeps some of what is fetched as the contract
// encodes it: for a caller behind a session it need not be decoded and encoded again.
// It is an Account's own to offer.
type EncodedFetcher interface {
	// FetchEncoded is Fetch, and leaves fields of the Item unset that stand in rest,
	// as protobuf encodes them there: what an Item of the request has is in one of the
	// two. Both are the storage's again when item returns.
	FetchEncoded(ctx context.Context, req *v1.FetchRequest, item func(it *v1.FetchResponse_Item, rest []byte) error) error
}

// batch gathers fetched items. An item is the storage's again when add returns, so it
// is encoded at once, which is less than to copy it and to encode it later.
type batch struct {
	send func(*v1.Reply) error
	raw  []byte // the items, as FetchResponse holds them
}

// itemTag is that of FetchResponse.items.
const itemTag = 1

// add takes an item and, encoded, what it has beside.
func (b *batch) add(it *v1.FetchResponse_Item, rest []byte) error {
	n := proto.Size(it) + len(rest)
	if len(b.raw) > 0 && len(b.raw)+n > batchSize {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.raw = protowire.AppendVarint(protowire.AppendTag(b.raw, itemTag, protowire.BytesType), uint64(n))
	var err error
	if b.raw, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(b.raw, it); err != nil {
		return fail.New(fail.Internal, "message %d cannot be sent: %s", it.GetUid(), strings.ToValidUTF8(err.Error(), "?"))
	}
	b.raw = append(b.raw, rest...)
	if it.GetMessage().GetPath() != "" {
		return b.flush() // the file is only promised to stay until add returns
	}
	return nil
}

func (b *batch) flush() error {
	err := b.send(b.reply())
	b.raw = b.raw[:0] // what is sent was encoded again
	return err
}

// reply holds what was gathered, as a field that nobody need look into.
func (b *batch) reply() *v1.Reply {
	resp := &v1.FetchResponse{}
	resp.ProtoReflect().SetUnknown(b.raw)
	return wrap(&v1.StorageReply{Op: &v1.StorageReply_Fetch{Fetch: resp}})
}

// fetch answers a Fetch in batches.
func fetch(ctx context.Context, a Account, req *v1.FetchRequest, send func(*v1.Reply) error) (*v1.Reply, error) {
	b := &batch{send: send}
	var err error
	if e, ok := a.(EncodedFetcher); ok {
		err = e.FetchEncoded(ctx, req, b.add)
	} else {
		err = a.Fetch(ctx, req, func(it *v1.FetchResponse_Item) error { return b.add(it, nil) })
	}
	if err != nil {
		return nil, err
	}
	return b.reply(), nil
}
