package imap

import "time"

// progressEvery is how often a client hears that its command is still under way.
const progressEvery = 10 * time.Second

// patiently runs a request to the storage that may take long, and tells the client
// that it does (RFC 9585), so that it does not give up.
func patiently[T any](ss *session, cmd *command, request func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		v, err := request()
		done <- answer{v, err}
	}()
	tick := time.NewTicker(ss.s.progressEvery)
	defer tick.Stop()
	for {
		select {
		case a := <-done:
			return a.value, a.err
		case <-tick.C:
			ss.out.raw("* OK [INPROGRESS (")
			ss.out.text(cmd.tag)
			ss.out.raw(" NIL NIL)] Still at it")
			ss.out.end()
			_ = ss.out.flush()
		}
	}
}
