package scripts

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// The annotations of an account (RFC 5464 leaves what is below /vendor to us). A
// script's name is in hexadecimal digits: annotations' names know no case.
const (
	place         = "/private/vendor/stagecoach/sieve"
	scriptsAt     = place + "/script/"
	activeAt      = place + "/active"
	troubleAt     = place + "/trouble"
	largestInList = 4 << 10
)

// Stored is a Store in the storage, as annotations of the accounts: where the mail
// is, and in its backup. Changes of one account by two processes at the same time
// are each whole; what one of them checked before may no longer hold then, such as
// the number of scripts.
type Stored struct {
	storage storage.Storage
	limits  Limits
	folder  string
	changes [64]sync.Mutex // by account
}

var _ Store = (*Stored)(nil)

// In keeps the scripts in a storage; global is the operator's folder, "" for none.
// A script has storage.MaxAnnotation octets at most, whatever the limits say.
func In(s storage.Storage, limits Limits, global string) *Stored {
	limits.Size = min(limits.Size, storage.MaxAnnotation)
	return &Stored{storage: s, limits: limits, folder: global}
}

// Global is "NAME.sieve" in the operator's folder.
func (s *Stored) Global(name string) ([]byte, error) { return global(s.folder, name) }

// Account implements Store.
func (s *Stored) Account(name string) Account {
	h := fnv.New32a()
	h.Write([]byte(strings.ToLower(name)))
	return &stored{store: s, name: name, change: &s.changes[h.Sum32()%uint32(len(s.changes))]}
}

type stored struct {
	store  *Stored
	name   string
	change *sync.Mutex
}

func scriptAt(name string) string { return scriptsAt + hex.EncodeToString([]byte(name)) }

// ask for annotations; what is not there is left out.
func (a *stored) ask(ctx context.Context, req *v1.AnnotationsRequest) ([]*v1.Annotation, error) {
	account, err := a.store.storage.Open(ctx, a.name)
	if err != nil {
		return nil, err
	}
	r, err := storage.Annotations(ctx, account, req)
	return r.GetAnnotations(), unable(err)
}

func (a *stored) set(ctx context.Context, list ...*v1.Annotation) error {
	account, err := a.store.storage.Open(ctx, a.name)
	if err != nil {
		return err
	}
	_, err = storage.SetAnnotations(ctx, account, &v1.SetAnnotationsRequest{Annotations: list})
	return unable(err)
}

func unable(err error) error {
	if fail.Is(err, fail.Unsupported) {
		return fmt.Errorf(`%w: name a folder for the scripts, scripts = "/var/lib/stagecoach/sieve"`, err)
	}
	return err
}

// value of one annotation; nil if there is none.
func (a *stored) value(ctx context.Context, at string) ([]byte, error) {
	list, err := a.ask(ctx, &v1.AnnotationsRequest{Names: []string{at}})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return slices.Concat([]byte{}, list[0].GetValue()), nil
}

// List implements Account.
func (a *stored) List(ctx context.Context) ([]Entry, error) {
	list, err := a.ask(ctx, &v1.AnnotationsRequest{Names: []string{place}, Below: true, MaxBytes: largestInList})
	if err != nil {
		return nil, err
	}
	active := ""
	var out []Entry
	for _, x := range list {
		if x.GetName() == activeAt {
			active = string(x.GetValue())
		}
		digits, isScript := strings.CutPrefix(x.GetName(), scriptsAt)
		if name, err := hex.DecodeString(digits); isScript && err == nil && validName(string(name)) {
			out = append(out, Entry{Name: string(name), Size: x.GetSize()})
		}
	}
	for i := range out {
		out[i].Active = out[i].Name == active
	}
	slices.SortFunc(out, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Get implements Account.
func (a *stored) Get(ctx context.Context, name string) ([]byte, error) {
	if !validName(name) {
		return nil, ErrNotFound
	}
	text, err := a.value(ctx, scriptAt(name))
	if err == nil && text == nil {
		err = ErrNotFound
	}
	return text, err
}

// Active implements Account.
func (a *stored) Active(ctx context.Context) (string, []byte, error) {
	name, err := a.value(ctx, activeAt)
	if err != nil || !validName(string(name)) {
		return "", nil, err
	}
	text, err := a.value(ctx, scriptAt(string(name)))
	if err != nil || text == nil {
		return "", nil, err
	}
	return string(name), text, nil
}

// Space implements Account.
func (a *stored) Space(ctx context.Context, name string, size int64) error {
	list, err := a.List(ctx)
	if err != nil {
		return err
	}
	return a.store.limits.space(list, name, size)
}

// Put implements Account.
func (a *stored) Put(ctx context.Context, name string, text []byte) error {
	a.change.Lock()
	defer a.change.Unlock()
	if err := a.Space(ctx, name, int64(len(text))); err != nil {
		return err
	}
	return a.set(ctx, &v1.Annotation{Name: scriptAt(name), Value: text})
}

// Delete implements Account.
func (a *stored) Delete(ctx context.Context, name string) error {
	a.change.Lock()
	defer a.change.Unlock()
	if e, err := a.entry(ctx, name); err != nil || e.Active {
		return cmp.Or(err, ErrActive)
	}
	return a.set(ctx, &v1.Annotation{Name: scriptAt(name), Removed: true})
}

func (a *stored) entry(ctx context.Context, name string) (Entry, error) {
	list, err := a.List(ctx)
	if err != nil {
		return Entry{}, err
	}
	if i := slices.IndexFunc(list, func(e Entry) bool { return e.Name == name }); i >= 0 {
		return list[i], nil
	}
	return Entry{}, ErrNotFound
}

// Rename implements Account: in one change.
func (a *stored) Rename(ctx context.Context, from, to string) error {
	a.change.Lock()
	defer a.change.Unlock()
	e, err := a.entry(ctx, from)
	if err != nil {
		return err
	}
	if !validName(to) {
		return ErrName
	}
	if _, err := a.entry(ctx, to); err == nil {
		return ErrExists
	}
	text, err := a.Get(ctx, from)
	if err != nil {
		return err
	}
	change := []*v1.Annotation{{Name: scriptAt(to), Value: text}, {Name: scriptAt(from), Removed: true}}
	if e.Active {
		change = append(change, &v1.Annotation{Name: activeAt, Value: []byte(to)})
	}
	return a.set(ctx, change...)
}

// Activate implements Account.
func (a *stored) Activate(ctx context.Context, name string) error {
	a.change.Lock()
	defer a.change.Unlock()
	if name == "" {
		return a.set(ctx, &v1.Annotation{Name: activeAt, Removed: true})
	}
	if _, err := a.entry(ctx, name); err != nil {
		return err
	}
	return a.set(ctx, &v1.Annotation{Name: activeAt, Value: []byte(name)})
}

// Report implements Account.
func (a *stored) Report(ctx context.Context, text string) error {
	return a.set(ctx, &v1.Annotation{Name: troubleAt, Value: []byte(shortened(text)), Removed: text == ""})
}

// Trouble implements Account.
func (a *stored) Trouble(ctx context.Context) (string, error) {
	text, err := a.value(ctx, troubleAt)
	return string(text), err
}
