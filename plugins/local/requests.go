package local

import (
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
)

// Requests with a key are answered once more as they were the first time. Their
// answers lie under the hour in which they were given, so that an hour goes with one
// deletion; the next hour is looked at too, for a clock that was set back.

// tabRequest: k hour account key, kind and answer of a request.
const tabRequest = 'k'

// keptHour is how long at least the answer to a request is known: its hour and the
// next.
const keptHour = time.Hour

// kind of a request: one key is for one kind.
type kind byte

const (
	kindAppend kind = 1 + iota
	kindCopy
	kindSetFlags
	kindExpunge
	kindCreate
	kindRename
	kindDelete
	kindUpdate
)

func (s *Store) hour() uint64 { return uint64(s.nowMS() / keptHour.Milliseconds()) }

// once is write for a request, which may have been carried out before: then repeated
// tells so, and f is not asked.
func once[M any, P interface {
	*M
	proto.Message
}](h *handle, key string, k kind, f func(c *change) (P, error)) (answer P, repeated bool, err error) {
	err = h.write(func(c *change) (err error) {
		if key != "" {
			answer = P(new(M))
			if repeated, err = c.answered(key, k, answer); repeated || err != nil {
				return err
			}
		}
		if answer, err = f(c); err == nil && key != "" && c.stepped {
			c.b.Set(keyRequest(c.s.hour(), c.a.num, key), append([]byte{byte(k)}, encode(answer)...), nil)
		}
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return answer, repeated, nil
}

// answered looks for the answer that a request got before.
func (c *change) answered(key string, k kind, answer proto.Message) (bool, error) {
	now := c.s.hour()
	for _, hour := range []uint64{now, now - 1, now + 1} {
		v, err := get(c.s.db, keyRequest(hour, c.a.num, key))
		switch {
		case err != nil:
			return false, err
		case v == nil:
			continue
		case len(v) == 0 || proto.Unmarshal(v[1:], answer) != nil:
			return false, errTorn
		case kind(v[0]) != k:
			return false, fail.New(fail.Invalid, "the request's key %q was another kind's", key)
		}
		return true, nil
	}
	return false, nil
}

// forgetRequests removes the answers of hours that are over.
func (s *Store) forgetRequests() {
	first, end := []byte{tabRequest}, key8(tabRequest, s.hour()-1)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: first, UpperBound: end})
	if err == nil {
		old := it.First()
		if err = it.Close(); err == nil && old {
			err = s.db.DeleteRange(first, end, pebble.NoSync)
		}
	}
	if err != nil {
		s.opts.Log.Error().Err(err).Msg("storage local: forgetting old requests")
	}
}

func keyRequest(hour, account uint64, key string) []byte {
	return append(key88(tabRequest, hour, account), key...)
}
