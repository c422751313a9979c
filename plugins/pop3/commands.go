package pop3

import (
	"strconv"
	"strings"
)

// command runs one line. Keywords are known in any case (RFC 1939 section 3).
func (ss *session) command(line string) {
	verb, rest, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	args := strings.Fields(rest)
	switch verb {
	case "CAPA":
		ss.capa()
		return
	case "QUIT":
		ss.quit()
		return
	}
	if ss.drop == nil {
		ss.authorization(verb, rest, args)
		return
	}
	ss.transaction(verb, args)
}

// capa lists what can be used in this state (RFC 2449 section 5).
func (ss *session) capa() {
	ss.ok("Capability list follows")
	caps := []string{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "UTF8", "IMPLEMENTATION Stagecoach"}
	if d := ss.s.config.MinLoginInterval; d > 0 {
		caps = append(caps, "LOGIN-DELAY "+strconv.Itoa(int(d.Seconds())))
	}
	if e := ss.s.config.Expire; e != "" {
		caps = append(caps, "EXPIRE "+strings.ToUpper(e))
	}
	if ss.mayLogIn() {
		caps = append(caps, "USER", "SASL "+strings.Join(ss.mechanisms(), " "))
	}
	if ss.canUpgrade() {
		caps = append(caps, "STLS")
	}
	for _, c := range caps {
		ss.out.WriteString(c + "\r\n")
	}
	ss.out.WriteString(".\r\n")
}

func (ss *session) canUpgrade() bool {
	return ss.drop == nil && !ss.secure && ss.s.host.TLS != nil
}

func (ss *session) authorization(verb, rest string, args []string) {
	switch verb {
	case "USER":
		if !ss.needTLS() {
			return
		}
		if len(args) != 1 || strings.ContainsFunc(args[0], func(r rune) bool { return r < ' ' || r == 0x7f }) {
			ss.wrong("USER takes a name")
			return
		}
		ss.user = args[0]
		// RFC 1939 section 7: the answer does not tell whether there is such a user.
		ss.ok("Send the password")
	case "PASS":
		if !ss.needTLS() {
			return
		}
		if ss.user == "" {
			ss.wrong("USER comes first")
			return
		}
		// A password may have spaces (RFC 1939 section 7).
		user := ss.user
		ss.user = ""
		ss.login("", user, rest)
	case "AUTH":
		ss.auth(args)
	case "STLS":
		ss.stls(args)
	case "UTF8":
		// RFC 6856 section 2.1. Messages go out as they are in any case.
		ss.ok("UTF8 enabled")
	case "STAT", "LIST", "RETR", "DELE", "NOOP", "RSET", "TOP", "UIDL":
		ss.wrong("Log in first")
	default:
		ss.wrong("Unknown command")
	}
}

func (ss *session) needTLS() bool {
	switch {
	case ss.mayLogIn():
		return true
	case ss.canUpgrade():
		ss.wrong("A password goes only over TLS: use STLS first")
	default:
		ss.wrong("A password goes only over TLS, and this listener has no certificate: use the server's TLS port")
	}
	return false
}

// stls begins TLS (RFC 2595 section 4).
func (ss *session) stls(args []string) {
	switch {
	case len(args) > 0:
		ss.wrong("STLS takes no argument")
		return
	case !ss.canUpgrade():
		ss.wrong("STLS is not available")
		return
	case ss.in.Buffered() > 0:
		// What came in the clear must not count after the handshake.
		ss.fail("Nothing may follow STLS before the handshake")
		ss.ended = true
		return
	}
	ss.ok("Begin TLS")
	if err := ss.out.Flush(); err != nil {
		ss.ended = true
		return
	}
	c, err := ss.s.handshake(ss.raw, ss.begun.Add(ss.s.config.LoginTimeout))
	if err != nil {
		ss.ended = true
		return
	}
	ss.user = ""
	ss.use(c, true)
}

func (ss *session) transaction(verb string, args []string) {
	switch verb {
	case "STAT":
		count, size := ss.drop.total()
		ss.ok("%d %d", count, size)
	case "LIST":
		ss.list(args, func(m *message) string { return strconv.FormatInt(m.size, 10) })
	case "UIDL":
		ss.list(args, ss.drop.uniqueID)
	case "RETR":
		if n, ok := ss.number(args, 1); ok {
			ss.send(n, -1)
		}
	case "TOP":
		lines := -1
		if len(args) == 2 {
			if v, err := strconv.ParseUint(args[1], 10, 31); err == nil {
				lines = int(v)
			}
		}
		if lines < 0 {
			ss.wrong("TOP takes a message and a number of lines")
		} else if n, ok := ss.number(args, 2); ok {
			ss.send(n, lines)
		}
	case "DELE":
		if n, ok := ss.number(args, 1); ok {
			ss.drop.messages[n-1].deleted = true
			ss.ok("Message %d deleted", n)
		}
	case "RSET":
		for _, m := range ss.drop.messages {
			m.deleted = false
		}
		count, size := ss.drop.total()
		ss.ok("%d messages (%d octets)", count, size)
	case "NOOP":
		ss.ok("Here")
	case "UTF8":
		// Belongs before the login; Outlook sends it here and gives up without +OK.
		ss.ok("UTF8 enabled")
	case "USER", "PASS", "AUTH", "STLS":
		ss.wrong("Already logged in")
	default:
		ss.wrong("Unknown command")
	}
}

// number reads a message number; a message marked as deleted has none (RFC 1939
// section 5).
func (ss *session) number(args []string, want int) (int, bool) {
	if len(args) != want {
		ss.wrong("Wrong number of arguments")
		return 0, false
	}
	n, err := strconv.ParseUint(args[0], 10, 31)
	if err != nil || n < 1 {
		ss.wrong("A message number is wanted")
		return 0, false
	}
	if int(n) > len(ss.drop.messages) || ss.drop.messages[n-1].deleted {
		ss.fail("No such message")
		return 0, false
	}
	return int(n), true
}

// list answers LIST and UIDL, for one message or for all.
func (ss *session) list(args []string, value func(*message) string) {
	if len(args) > 0 {
		if n, ok := ss.number(args, 1); ok {
			ss.ok("%d %s", n, value(ss.drop.messages[n-1]))
		}
		return
	}
	ss.enlarge()
	count, size := ss.drop.total()
	ss.ok("%d messages (%d octets)", count, size)
	for i, m := range ss.drop.messages {
		if !m.deleted {
			ss.out.WriteString(strconv.Itoa(i+1) + " " + value(m) + "\r\n")
		}
	}
	ss.out.WriteString(".\r\n")
}

// quit removes what was marked and ends the session (RFC 1939 section 6).
func (ss *session) quit() {
	ss.ended = true
	if ss.drop == nil {
		ss.ok("Bye")
		return
	}
	ctx, cancel := ss.call()
	defer cancel()
	account := ss.account
	n, err := ss.drop.remove(ctx)
	// A client that has the answer may come again at once.
	ss.release()
	if err != nil {
		ss.problem(err, account, "remove the deleted messages")
		return
	}
	if n > 0 {
		ss.s.meters.removed.Add(int64(n))
		ss.s.host.Log.Info().Str("account", account).Int("messages", n).Msg("removed")
	}
	ss.ok("Bye, %d messages removed", n)
}
