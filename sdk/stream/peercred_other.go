//go:build !linux

package stream

import "net"

// sameUser relies on the socket's file mode and the token where the system has
// no SO_PEERCRED.
type sameUser struct{ net.Listener }
