package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"google.golang.org/protobuf/proto"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	sdkstream "github.com/stagecoach-mta/stagecoach/sdk/stream"
)

// Storage is a storage of the configuration.
type Storage struct {
	// Instance is its address: "storage.local.mail".
	Instance string `json:"instance"`
	Plugin   string `json:"plugin"`
	// DataDir is where it keeps what is its own; empty: nowhere.
	DataDir string `json:"data_dir"`
}

// StorageBackend is what the commands about mailboxes act on.
type StorageBackend interface {
	Storages(ctx context.Context) ([]Storage, error)
	// Administer makes a call of the storage contract and gives send its replies, the
	// last one too. message, if it is not nil, holds the octets of an Append's only
	// message.
	Administer(ctx context.Context, instance string, call *v1.StorageCall, message io.Reader, send func(*v1.Reply) error) error
}

// A storage's call travels as its length, the call and what of a message did not fit
// into it; its answer as frames: a kind, a length and a Reply or a Problem.
const (
	frameReply   = 'r'
	frameProblem = 'p'
	frameEnd     = 'e'

	// mostFrame octets bound what either side reads into memory.
	mostFrame = 64 << 20
)

func storageRoutes(m *http.ServeMux, b StorageBackend) {
	m.HandleFunc("GET /storages", func(w http.ResponseWriter, r *http.Request) {
		list, err := b.Storages(r.Context())
		answer(w, list, err)
	})
	m.HandleFunc("POST /storages/{instance}", func(w http.ResponseWriter, r *http.Request) {
		body := bufio.NewReader(r.Body)
		call, err := readCall(body)
		if err != nil {
			answer(w, nil, err)
			return
		}
		var message io.Reader
		if _, err := body.Peek(1); err == nil {
			message = body
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		flush := http.NewResponseController(w).Flush
		err = b.Administer(r.Context(), r.PathValue("instance"), call, message, func(reply *v1.Reply) error {
			if err := writeFrame(w, frameReply, reply); err != nil {
				return err
			}
			return flush()
		})
		if err != nil {
			_ = writeFrame(w, frameProblem, fail.ToProblem(err)) // the client has gone, if this fails
			return
		}
		_ = writeFrame(w, frameEnd, nil) // as above
	})
}

func readCall(r io.Reader) (*v1.StorageCall, error) {
	b, err := readSized(r)
	if err != nil {
		return nil, err
	}
	call := &v1.StorageCall{}
	return call, proto.Unmarshal(b, call)
}

func readSized(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > mostFrame {
		return nil, fmt.Errorf("a frame of %d octets is too large", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeFrame(w io.Writer, kind byte, m proto.Message) error {
	var b []byte
	if m != nil {
		var err error
		if b, err = proto.Marshal(m); err != nil {
			return err
		}
	}
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(b)))
	_, err := w.Write(append(head, b...))
	return err
}

// Storages are those of the server's configuration.
func (c *Client) Storages(ctx context.Context) (list []Storage, err error) {
	err = c.Call(ctx, http.MethodGet, "/storages", nil, &list)
	return list, err
}

// Storage calls a storage by way of the server.
func (c *Client) Storage(instance string) sdkstream.Caller { return &storageCaller{c, instance} }

type storageCaller struct {
	client   *Client
	instance string
}

var _ sdkstream.Caller = (*storageCaller)(nil)

// Call implements stream.Caller.
func (s *storageCaller) Call(ctx context.Context, call *v1.Call) (*v1.Reply, error) {
	var last *v1.Reply
	err := s.Stream(ctx, call, func(r *v1.Reply) error {
		last = r
		return nil
	})
	return last, err
}

// Stream implements stream.Caller.
func (s *storageCaller) Stream(ctx context.Context, call *v1.Call, each func(*v1.Reply) error) error {
	body, done, err := callBody(call.GetStorage())
	if err != nil {
		return err
	}
	defer done()
	// Who stops reading ends the call.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := s.client.send(ctx, http.MethodPost, "/storages/"+url.PathEscape(s.instance), nil, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	for {
		kind, err := in.ReadByte()
		var b []byte
		if err == nil {
			b, err = readSized(in)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fail.Wrap(fail.Unavailable, err, "the server ended the answer early")
		case kind == frameEnd:
			return nil
		case kind == frameProblem:
			p := &v1.Problem{}
			if err := proto.Unmarshal(b, p); err != nil {
				return err
			}
			return fail.FromProblem(p)
		}
		r := &v1.Reply{}
		if err := proto.Unmarshal(b, r); err != nil {
			return err
		}
		if err := each(r); err != nil {
			return err
		}
	}
}

// callBody is a call as it travels: a message that is a file goes behind it.
func callBody(call *v1.StorageCall) (r io.Reader, done func(), err error) {
	done = func() {}
	var file *os.File
	if list := call.GetAppend().GetMessages(); len(list) == 1 && list[0].GetMessage().GetPath() != "" {
		if file, err = os.Open(list[0].GetMessage().GetPath()); err != nil {
			return nil, nil, err
		}
		call = proto.CloneOf(call)
		call.GetAppend().Messages[0].Message.Where = nil
		done = func() { file.Close() }
	}
	b, err := proto.Marshal(call)
	if err == nil && len(b) > mostFrame {
		err = errors.New("the call is too large")
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(b)))
	parts := []io.Reader{bytes.NewReader(append(head, b...))}
	if file != nil {
		parts = append(parts, file)
	}
	return io.MultiReader(parts...), done, nil
}
