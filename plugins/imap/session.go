package imap

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-sasl"

	"github.com/stagecoach-mta/stagecoach/plugins/imap/admission"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// session answers imapserver's calls from the storage. mu guards what is below
// it: IDLE runs in a goroutine of its own, which imapserver does not always
// wait for.
type session struct {
	s      *Server
	c      *conn
	imap   *imapserver.Conn
	ctx    context.Context
	cancel context.CancelFunc

	attempts int
	account  string
	store    storage.Account

	mu       sync.Mutex
	closed   bool
	box      *view
	readOnly bool
	changes  *subscription
	// saved is the result that "$" stands for (RFC 9051 section 6.4.4.1).
	saved []uint32
}

var (
	_ imapserver.SessionIMAP4rev2   = (*session)(nil)
	_ imapserver.SessionSASL        = (*session)(nil)
	_ imapserver.SessionAppendLimit = (*session)(nil)
)

var (
	errNoSuchMessage = &imap.Error{Type: imap.StatusResponseTypeBad, Text: "There is no message of that number"}
	errReadOnly      = &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeNoPerm, Text: "The mailbox was opened read-only"}
)

func (s *Server) newSession(ic *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
	ss := &session{s: s, c: ic.NetConn().(*conn), imap: ic}
	ss.ctx, ss.cancel = context.WithCancel(s.ctx)
	return ss, nil, nil
}

// Close implements imapserver.Session.
func (ss *session) Close() error {
	ss.cancel()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.closed = true
	ss.leaveBox()
	if ss.account != "" {
		ss.s.gate.Part(ss.account)
	}
	return nil
}

// call is the context of one request to the storage.
func (ss *session) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(ss.ctx, ss.s.config.StorageTimeout)
}

// AuthenticateMechanisms implements imapserver.SessionSASL.
func (ss *session) AuthenticateMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

// Authenticate implements imapserver.SessionSASL.
func (ss *session) Authenticate(mechanism string) (sasl.Server, error) {
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(func(identity, username, password string) error {
			return ss.login(identity, username, password)
		}), nil
	case sasl.Login:
		return &loginMechanism{session: ss}, nil
	}
	return nil, &imap.Error{Type: imap.StatusResponseTypeNo, Text: "Mechanism not supported"}
}

// loginMechanism is SASL LOGIN as old clients speak it (draft-murchison-sasl-login).
type loginMechanism struct {
	session  *session
	step     int
	username string
}

func (m *loginMechanism) Next(response []byte) ([]byte, bool, error) {
	if m.step == 0 && response == nil {
		return []byte("Username:"), false, nil
	}
	m.step++
	if m.step == 1 {
		m.username = string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, m.session.login("", m.username, string(response))
}

// Login implements imapserver.Session.
func (ss *session) Login(username, password string) error {
	return ss.login("", username, password)
}

func (ss *session) login(identity, username, password string) error {
	ctx, cancel := ss.call()
	defer cancel()
	answer, err := ss.s.host.Directory.Authenticate(ctx, &v1.AuthenticateRequest{
		Username: username, Password: password, AuthorizationIdentity: identity,
		ClientIp: admission.Host(ss.c.RemoteAddr()), Service: "imap",
	})
	log := ss.s.host.Log.With().Str("user", username).Stringer("client", ss.c.RemoteAddr()).Logger()
	switch {
	case fail.Is(err, fail.Denied), fail.Is(err, fail.NotFound), fail.Is(err, fail.Invalid):
		wait := ss.s.gate.Failed(ss.c.source)
		log.Info().Dur("delay", wait).Msg("login refused")
		admission.Wait(ss.ctx, wait)
		if ss.attempts++; ss.attempts >= ss.s.config.MaxLoginAttempts {
			ss.c.hangUp("Too many wrong passwords")
		}
		return imapserver.ErrAuthFailed
	case err != nil:
		log.Error().Err(err).Msg("cannot check a password")
		return refusal(err)
	}
	if !ss.s.gate.Join(answer.GetAccount()) {
		log.Warn().Msg("too many sessions")
		return &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeLimit, Text: "Too many sessions of this account: close one"}
	}
	store, err := ss.s.host.Storage.Open(ctx, answer.GetAccount())
	if err != nil {
		ss.s.gate.Part(answer.GetAccount())
		log.Error().Err(err).Msg("cannot open the account")
		return refusal(err)
	}
	ss.account, ss.store = answer.GetAccount(), store
	ss.c.loggedIn.Store(true)
	log.Info().Str("account", ss.account).Bool("tls", ss.c.secure).Msg("login")
	return nil
}

// AppendLimit implements imapserver.SessionAppendLimit.
func (ss *session) AppendLimit() uint32 { return uint32(ss.s.config.MaxMessage) }

// Namespace implements imapserver.SessionNamespace.
func (ss *session) Namespace() (*imap.NamespaceData, error) {
	return &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Delim: rune(separator[0])}}}, nil
}

// Select implements imapserver.Session.
func (ss *session) Select(name string, options *imap.SelectOptions) (*imap.SelectData, error) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ctx, cancel := ss.call()
	defer cancel()
	mbox, err := ss.find(ctx, name)
	if err != nil {
		return nil, err
	}
	// The stream first: what changes while the snapshot is taken is looked at
	// once too often rather than never.
	changes := ss.s.feeds.subscribe(ss.account, ss.store, mbox.GetId())
	snapshot, err := ss.store.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: mbox.GetId()})
	if err != nil {
		ss.s.feeds.leave(changes)
		return nil, refusal(err)
	}
	ss.leaveBox()
	ss.changes, ss.box, ss.readOnly = changes, newView(snapshot), options.ReadOnly
	data := &imap.SelectData{
		Flags:       ss.box.mailboxFlags(),
		NumMessages: uint32(len(ss.box.uids)),
		UIDNext:     imap.UID(snapshot.GetMailbox().GetUidNext()),
		UIDValidity: snapshot.GetMailbox().GetUidValidity(),
	}
	if !ss.readOnly {
		data.PermanentFlags = append(ss.box.mailboxFlags(), imap.FlagWildcard)
	}
	for i, bits := range ss.box.flags {
		if bits&uint32(v1.Flag_FLAG_SEEN) == 0 {
			data.FirstUnseenSeqNum = uint32(i) + 1
			break
		}
	}
	if ss.imap.EnabledCaps().Has(imap.CapIMAP4rev2) {
		data.List = &imap.ListData{Delim: rune(separator[0]), Mailbox: mbox.GetName()}
	}
	return data, nil
}

func (v *view) mailboxFlags() []imap.Flag {
	return flagList(^uint32(0), v.known)
}

// Unselect implements imapserver.Session.
func (ss *session) Unselect() error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.leaveBox()
	return nil
}

func (ss *session) leaveBox() {
	if ss.changes != nil {
		ss.s.feeds.leave(ss.changes)
	}
	ss.box, ss.changes, ss.saved = nil, nil, nil
}

// Poll implements imapserver.Session: it tells the client what changed, at the
// end of a command. NOOP and CHECK always look; the others when the stream has
// said that there is something.
func (ss *session) Poll(w *imapserver.UpdateWriter, allowExpunge bool) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.box == nil {
		return nil
	}
	select {
	case <-ss.changes.C:
	default:
		if ss.c.verb != "NOOP" && ss.c.verb != "CHECK" {
			return ss.tell(w, change{}, allowExpunge)
		}
	}
	return ss.refresh(w, allowExpunge)
}

// Idle implements imapserver.Session.
func (ss *session) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	ss.mu.Lock()
	if ss.box == nil || ss.closed {
		ss.mu.Unlock()
		<-stop
		return nil
	}
	changed := ss.changes.C
	err := ss.refresh(w, true)
	ss.mu.Unlock()
	for err == nil {
		select {
		case <-stop:
			return nil
		case <-ss.ctx.Done():
			return nil
		case <-changed:
		}
		ss.mu.Lock()
		if ss.box == nil || ss.closed {
			ss.mu.Unlock()
			<-stop
			return nil
		}
		err = ss.refresh(w, true)
		ss.mu.Unlock()
	}
	return err
}

// refresh asks the storage what changed and tells it; the caller holds mu. A
// storage that cannot answer now is asked again at the next occasion.
func (ss *session) refresh(w *imapserver.UpdateWriter, allowExpunge bool) error {
	ctx, cancel := ss.call()
	defer cancel()
	snapshot, err := ss.store.Snapshot(ctx, &v1.SnapshotRequest{MailboxId: ss.box.mailbox.GetId(), SinceModseq: ss.box.since})
	if fail.Is(err, fail.NotFound) || err == nil && snapshot.GetMailbox().GetUidValidity() != ss.box.mailbox.GetUidValidity() {
		ss.c.hangUp("The mailbox is no longer there")
		return nil
	}
	if err != nil {
		ss.s.host.Log.Warn().Err(err).Str("account", ss.account).Msg("cannot look for changes")
		return nil
	}
	what := ss.box.apply(snapshot)
	ss.box.since = snapshot.GetModseq()
	return ss.tell(w, what, allowExpunge)
}

// tell writes what changed. EXPUNGE comes before EXISTS, so that the number of
// messages never falls by an EXISTS (RFC 9051 section 7.4.1).
func (ss *session) tell(w *imapserver.UpdateWriter, what change, allowExpunge bool) error {
	if what.keywords {
		if err := w.WriteMailboxFlags(ss.box.mailboxFlags()); err != nil {
			return err
		}
	}
	for _, seq := range what.flags {
		uid := ss.box.uids[seq-1]
		if err := w.WriteMessageFlags(seq, imap.UID(uid), flagList(ss.box.flags[seq-1], ss.box.keywords[uid])); err != nil {
			return err
		}
	}
	if allowExpunge {
		if err := ss.box.expunge(w.WriteExpunge); err != nil {
			return err
		}
	}
	if what.grown {
		return w.WriteNumMessages(uint32(len(ss.box.uids)))
	}
	return nil
}

// look makes the next Poll ask the storage.
func (ss *session) look() {
	if ss.changes != nil {
		select {
		case ss.changes.C <- struct{}{}:
		default:
		}
	}
}

// refusal makes IMAP's answer of the storage's or the directory's.
func refusal(err error) error {
	no := func(code imap.ResponseCode, text string) error {
		return &imap.Error{Type: imap.StatusResponseTypeNo, Code: code, Text: text}
	}
	var already *imap.Error
	if errors.As(err, &already) {
		return err
	}
	switch fail.KindOf(err) {
	case fail.NotFound:
		return no(imap.ResponseCodeNonExistent, "There is no such mailbox")
	case fail.Exists:
		return no(imap.ResponseCodeAlreadyExists, "There is a mailbox of that name already")
	case fail.Invalid:
		return no(imap.ResponseCodeCannot, "The name or value is not allowed")
	case fail.Denied:
		return no(imap.ResponseCodeNoPerm, "Not permitted")
	case fail.OverQuota:
		return no(imap.ResponseCodeOverQuota, "The account is full: delete something first")
	case fail.TooLarge:
		return no(imap.ResponseCodeTooBig, "Too big")
	case fail.NoSpace:
		return no(imap.ResponseCodeUnavailable, "The server's disk is full, try again later")
	case fail.Conflict:
		return no(imap.ResponseCodeInUse, "Changed meanwhile, try again")
	}
	return no(imap.ResponseCodeUnavailable, "Not available now, try again later")
}

// long is the context of a request that streams messages to the client, as slow
// as that may be: the writes have their own limit.
func (ss *session) long() (context.Context, context.CancelFunc) {
	return context.WithTimeout(ss.ctx, 24*time.Hour)
}
