package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// send submits a mail with authentication over STARTTLS, as a mail program does,
// and returns the server's last words.
func (s *site) send(ctx context.Context, from, to, subject, text string) (string, error) {
	conf, err := s.tls()
	if err != nil {
		return "", err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.submission)
	if err != nil {
		return "", err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	c, err := smtp.NewClientStartTLS(conn, conf)
	if err != nil {
		conn.Close()
		return "", err
	}
	defer c.Close()
	if err := c.Auth(sasl.NewPlainClient("", from, password)); err != nil {
		return "", fmt.Errorf("log in: %w", err)
	}
	if err := c.Mail(from, nil); err != nil {
		return "", err
	}
	if err := c.Rcpt(to, nil); err != nil {
		return "", err
	}
	w, err := c.Data()
	if err != nil {
		return "", err
	}
	body := fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: %s\r\n\r\n%s\r\n",
		from, to, subject, time.Now().Format(time.RFC1123Z), strings.ReplaceAll(text, "\n", "\r\n"))
	if _, err := w.Write([]byte(body)); err != nil {
		return "", err
	}
	resp, err := w.CloseWithResponse()
	if err != nil {
		return "", err
	}
	_ = c.Quit()
	return strings.TrimPrefix(resp.StatusText, "2.6.0 "), nil
}

// refused sends and wants to be refused; the refusal is what happened.
func (s *site) refused(ctx context.Context, from, to string, code int) (string, error) {
	said, err := s.send(ctx, from, to, "to nobody", "Is anybody there?")
	var se *smtp.SMTPError
	switch {
	case err == nil:
		return "", fmt.Errorf("it was accepted: %s", said)
	case !errors.As(err, &se) || se.Code != code:
		return "", err
	}
	return fmt.Sprintf("refused with %d %s", se.Code, se.Message), nil
}

// queueID is the last word of "Queued as ID".
func queueID(said string) string {
	f := strings.Fields(said)
	if len(f) == 0 {
		return ""
	}
	return f[len(f)-1]
}
