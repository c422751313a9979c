package storage

import (
	"context"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// RequestKeys is the feature of a storage that keeps the keys of requests: name it
// in the plugin's Features if yours does, and its callers' changes go on over a
// restart.
const RequestKeys = stream.RequestKeys

// maxRequestKey is how many octets a request's key may have.
const maxRequestKey = 64

type requestKey struct{}

// key of a request; ours: the caller chose it, and did not receive it.
type key struct {
	text string
	ours bool
}

// RequestKey is the key of the request that a Storage's method is asked, empty if
// there is none: StorageCall.request_key says what becomes of it.
func RequestKey(ctx context.Context) string {
	k, _ := ctx.Value(requestKey{}).(key)
	return k.text
}

// WithRequestKey gives the next request its key, for a caller that may repeat it
// itself. Otherwise NewClient's Storage makes a new one for each request that is not
// repeatable as it is.
func WithRequestKey(ctx context.Context, text string) context.Context {
	return context.WithValue(ctx, requestKey{}, key{text, true})
}

// received keeps a request's key for the Storage that is asked. It goes no further:
// one that asks another storage several things must not give them all one key.
func received(ctx context.Context, text string) (context.Context, error) {
	if len(text) > maxRequestKey {
		return nil, fail.New(fail.Invalid, "a request's key has at most %d octets, this one has %d", maxRequestKey, len(text))
	}
	if text == "" {
		return ctx, nil
	}
	return context.WithValue(ctx, requestKey{}, key{text, false}), nil
}

// ownRequestKey is the key that a caller chose.
func ownRequestKey(ctx context.Context) string {
	if k, _ := ctx.Value(requestKey{}).(key); k.ours {
		return k.text
	}
	return ""
}
