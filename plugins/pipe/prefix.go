package pipe

import (
	"fmt"
	"io"
	"strings"
)

// prefixed puts what a final delivery adds in front of the message (RFC 5321
// section 4.4): the reverse-path, and whom it was delivered to.
func prefixed(sender, recipient string, body io.Reader) io.Reader {
	return io.MultiReader(strings.NewReader(fmt.Sprintf("Return-Path: <%s>\r\nDelivered-To: %s\r\n", sender, recipient)), body)
}
