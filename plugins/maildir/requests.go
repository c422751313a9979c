package maildir

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

const (
	// keepAnswers is how long the answer to a request is known.
	keepAnswers = time.Hour
	// manyAnswers: from there on, old ones are looked for with each new one.
	manyAnswers = 1000
)

// answered is what a request with a key was answered with; it stands in the same
// record as the change.
type answered struct {
	MS     int64
	Kind   string
	Answer []byte
}

// once is write for a request, which may have been carried out before.
func once[M any, P interface {
	*M
	proto.Message
}](ctx context.Context, a *account, kind string, f func() (P, error)) (answer P, err error) {
	key := storage.RequestKey(ctx)
	err = a.write(func() (err error) {
		if was, ok := a.answers[key]; ok && key != "" {
			if was.Kind != kind {
				return fail.New(fail.Invalid, "the request's key %q was another kind's", key)
			}
			answer = P(new(M))
			return proto.Unmarshal(was.Answer, answer)
		}
		if answer, err = f(); err != nil || key == "" || !a.rec.stepped {
			return err
		}
		b, err := proto.Marshal(answer)
		if err != nil {
			return err
		}
		if len(a.answers) >= manyAnswers {
			a.forgetAnswers()
		}
		is := answered{MS: a.s.nowMS(), Kind: kind, Answer: b}
		a.answers[key] = is
		a.rec.Answers = map[string]answered{key: is}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func (a *account) forgetAnswers() {
	old := a.s.opts.Now().Add(-keepAnswers).UnixMilli()
	for k, is := range a.answers {
		if is.MS < old {
			delete(a.answers, k)
		}
	}
}

// requestPrefix begins the names of the files that a request makes. A crash between
// a file and its record leaves a file that tells whose it was.
func requestPrefix(key string) string {
	sum := sha256.Sum256([]byte(key))
	return fmt.Sprintf("R%x.", sum[:16])
}

const nameSuffix = ".stagecoach"

// nameFor is the name of the file that a request makes of its number n: the place
// among those that it brings, or the UID of what it copies.
func (a *account) nameFor(key string, n uint32) string {
	if key == "" {
		return a.unique()
	}
	return requestPrefix(key) + strconv.FormatUint(uint64(n), 10) + nameSuffix
}

// begun are the messages that the request made before a crash, by their numbers.
func (b *box) begun(key string) map[uint32]*message {
	if key == "" {
		return nil
	}
	var out map[uint32]*message
	prefix := requestPrefix(key)
	for name, m := range b.byBase {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(rest, nameSuffix), 10, 32)
		if err != nil {
			continue
		}
		if out == nil {
			out = map[uint32]*message{}
		}
		out[uint32(n)] = m
	}
	return out
}
