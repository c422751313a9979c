package managesieve

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/stagecoach-mta/stagecoach/plugins/sieve/engine"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve/script"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve/scripts"
)

// shape of a command: its arguments, 's' a string and 'n' a number, in capitals
// where they may be left out; login tells that it needs one.
type shape struct {
	args  string
	login bool
	run   func(*session, *command)
}

var shapes = map[string]shape{
	"AUTHENTICATE":   {"sS", false, (*session).authenticate},
	"STARTTLS":       {"", false, func(ss *session, _ *command) { ss.startTLS() }},
	"LOGOUT":         {"", false, func(ss *session, _ *command) { ss.ok("", "Logging out"); ss.ended = true }},
	"CAPABILITY":     {"", false, func(ss *session, _ *command) { ss.capabilities(); ss.ok("", "Capabilities listed") }},
	"NOOP":           {"S", false, (*session).noop},
	"UNAUTHENTICATE": {"", true, (*session).unauthenticate},
	"HAVESPACE":      {"sn", true, (*session).haveSpace},
	"PUTSCRIPT":      {"ss", true, (*session).putScript},
	"CHECKSCRIPT":    {"s", true, (*session).checkScript},
	"LISTSCRIPTS":    {"", true, (*session).listScripts},
	"SETACTIVE":      {"s", true, (*session).setActive},
	"GETSCRIPT":      {"s", true, (*session).getScript},
	"DELETESCRIPT":   {"s", true, (*session).deleteScript},
	"RENAMESCRIPT":   {"ss", true, (*session).renameScript},
}

func (ss *session) do(cmd *command) {
	s, ok := shapes[cmd.name]
	switch {
	case !ok:
		ss.wrong("There is no such command")
	case !s.takes(cmd.args):
		ss.wrong("The arguments of " + cmd.name + " are not these")
	case s.login && ss.account == nil:
		ss.no("", "Log in first")
	default:
		s.run(ss, cmd)
	}
}

func (s *shape) takes(args []argument) bool {
	if len(args) > len(s.args) {
		return false
	}
	for i, want := range s.args {
		if i >= len(args) {
			if want != 'S' {
				return false
			}
			continue
		}
		if args[i].number != (want == 'n') {
			return false
		}
	}
	return true
}

func (ss *session) noop(cmd *command) {
	if len(cmd.args) == 0 {
		ss.ok("", "Nothing done")
		return
	}
	if cmd.args[0].over {
		ss.no("", "That tag is too large")
		return
	}
	ss.ok("TAG "+quote(cmd.args[0].text), "Nothing done")
}

func (ss *session) unauthenticate(*command) {
	ss.user, ss.account, ss.begun = "", nil, time.Now()
	ss.ok("", "Logged out of the account")
}

// refused replies for what the scripts refuse.
func (ss *session) refused(err error, doing string) {
	code, text := "", err.Error()
	switch {
	case errors.Is(err, scripts.ErrNotFound):
		code = "NONEXISTENT"
	case errors.Is(err, scripts.ErrExists):
		code = "ALREADYEXISTS"
	case errors.Is(err, scripts.ErrActive):
		code = "ACTIVE"
	case errors.Is(err, scripts.ErrTooLarge):
		code = "QUOTA/MAXSIZE"
	case errors.Is(err, scripts.ErrTooMany):
		code = "QUOTA/MAXSCRIPTS"
	case errors.Is(err, scripts.ErrName):
	default:
		ss.s.host.Log.Error().Err(err).Str("user", ss.user).Msg("cannot " + doing)
		code, text = "TRYLATER", "cannot "+doing+" now"
	}
	ss.no(code, strings.ToUpper(text[:1])+text[1:])
}

func (ss *session) haveSpace(cmd *command) {
	size, _ := strconv.ParseInt(cmd.args[1].text, 10, 64) // it was read as one
	if err := ss.account.Space(ss.s.ctx, cmd.args[0].text, size); err != nil {
		ss.refused(err, "look for space")
		return
	}
	ss.ok("", "There is space")
}

// lookup answers the checker's questions for included scripts.
type lookup struct{ ss *session }

var _ engine.Host = lookup{}

// Script implements engine.Host.
func (l lookup) Script(ctx context.Context, global bool, name string) ([]byte, error) {
	if global {
		return l.ss.s.scripts.Global(name)
	}
	text, err := l.ss.account.Get(ctx, name)
	if errors.Is(err, scripts.ErrNotFound) {
		return nil, nil
	}
	return text, err
}

// Mailbox implements engine.Host; no script runs here.
func (lookup) Mailbox(context.Context, string) (bool, error) { return false, nil }

// SpecialUse implements engine.Host.
func (lookup) SpecialUse(context.Context, string) (string, error) { return "", nil }

// Seen implements engine.Host.
func (lookup) Seen(context.Context, string) (bool, error) { return false, nil }

// check a script; false if it was refused, which the client knows then.
func (ss *session) check(a *argument) (warnings string, good bool) {
	if a.over {
		ss.refused(scripts.ErrTooLarge, "")
		return "", false
	}
	ctx, cancel := ss.call()
	defer cancel()
	s, diags := engine.New(ss.s.engine, lookup{ss}).Compile(ctx, "", []byte(a.text))
	text := diagnostics(diags)
	if s == nil {
		ss.no("", text)
		return "", false
	}
	return text, true
}

func diagnostics(diags []script.Diagnostic) string {
	var lines []string
	for _, d := range diags {
		lines = append(lines, d.Error())
	}
	return strings.Join(lines, "\r\n")
}

func (ss *session) accepted(warnings, text string) {
	if warnings != "" {
		ss.ok("WARNINGS", warnings)
		return
	}
	ss.ok("", text)
}

func (ss *session) checkScript(cmd *command) {
	if warnings, good := ss.check(&cmd.args[0]); good {
		ss.accepted(warnings, "The script can be run")
	}
}

func (ss *session) putScript(cmd *command) {
	name, text := cmd.args[0].text, &cmd.args[1]
	if !text.over {
		if err := ss.account.Space(ss.s.ctx, name, int64(len(text.text))); err != nil {
			ss.refused(err, "store the script")
			return
		}
	}
	warnings, good := ss.check(text)
	if !good {
		return
	}
	if err := ss.account.Put(ss.s.ctx, name, []byte(text.text)); err != nil {
		ss.refused(err, "store the script")
		return
	}
	ss.s.meters.stored.Add(1)
	ss.s.host.Log.Info().Str("user", ss.user).Str("script", name).Int("size", len(text.text)).Msg("script stored")
	ss.accepted(warnings, "Stored")
}

func (ss *session) listScripts(*command) {
	list, err := ss.account.List(ss.s.ctx)
	if err != nil {
		ss.refused(err, "list the scripts")
		return
	}
	for _, e := range list {
		ss.out.WriteString(quote(e.Name))
		if e.Active {
			ss.out.WriteString(" ACTIVE")
		}
		ss.out.WriteString("\r\n")
	}
	ss.ok("", "Scripts listed")
}

func (ss *session) setActive(cmd *command) {
	name := cmd.args[0].text
	if err := ss.account.Activate(ss.s.ctx, name); err != nil {
		ss.refused(err, "activate the script")
		return
	}
	ss.s.host.Log.Info().Str("user", ss.user).Str("script", name).Msg("script activated")
	ss.ok("", "Done")
}

func (ss *session) getScript(cmd *command) {
	text, err := ss.account.Get(ss.s.ctx, cmd.args[0].text)
	if err != nil {
		ss.refused(err, "read the script")
		return
	}
	// A literal in any case, as clients expect of a script.
	ss.conn.SetWriteDeadline(time.Now().Add(ss.s.config.WriteTimeout))
	ss.out.WriteString("{" + strconv.Itoa(len(text)) + "}\r\n")
	_, _ = ss.out.Write(text)
	ss.out.WriteString("\r\n")
	ss.ok("", "Here it is")
}

func (ss *session) deleteScript(cmd *command) {
	if err := ss.account.Delete(ss.s.ctx, cmd.args[0].text); err != nil {
		ss.refused(err, "delete the script")
		return
	}
	ss.ok("", "Deleted")
}

func (ss *session) renameScript(cmd *command) {
	if err := ss.account.Rename(ss.s.ctx, cmd.args[0].text, cmd.args[1].text); err != nil {
		ss.refused(err, "rename the script")
		return
	}
	ss.ok("", "Renamed")
}
