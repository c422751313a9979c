package conform

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// inlineLimit is mail.InlineLimit: what is larger travels as a file.
const inlineLimit = 16 << 10

// DefaultLarge is the size of the largest letter, in octets.
const DefaultLarge = 50 << 20

// Letter is a message to try a plugin with.
type Letter struct {
	// Name goes into the name of its check.
	Name string
	// Text is the whole message; for a large one, the beginning that is repeated
	// up to Size.
	Text string
	Size int64
}

const letterHead = "From: Tom <tom@hanks.example>\r\nTo: Meg <meg@ryan.example>\r\nSubject: Hello\r\n" +
	"Date: Thu, 15 Feb 2007 01:02:03 +0200\r\nMessage-ID: <conform@hanks.example>\r\n"

// Ordinary is the mail that nobody has anything against.
func Ordinary() Letter {
	text := letterHead + "\r\nHello Meg\r\n"
	return Letter{Name: "an ordinary one", Text: text, Size: int64(len(text))}
}

// Letters are the ordinary mail and the odd ones that every plugin that sees
// messages must live with. The last one has large octets (0: DefaultLarge).
func Letters(large int64) []Letter {
	if large <= 0 {
		large = DefaultLarge
	}
	deep := "MIME-Version: 1.0\r\n"
	for i := range 500 {
		deep += fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	text := []Letter{
		Ordinary(),
		{Name: "8-bit text without a charset", Text: letterHead + "Subject: gr\xfc\xdfe\r\nX-Utf8: gr\u00fc\u00dfe\r\n\r\n\xe4\xf6\xfc \x80\xff\r\n"},
		{Name: "NUL octets", Text: letterHead + "X-Nul: a\x00b\r\n\r\nbody \x00\x01\x02\r\n"},
		{Name: "bare CR and bare LF", Text: letterHead + "X-Bare: a\rb\r\nX-Lf: c\n d\r\n\r\none\rtwo\nthree\r\n.\r\n.\n\r\n"},
		{Name: "malformed MIME", Text: letterHead + "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b;\r\nContent-Type: ;;=\"\r\n" +
			"Content-Disposition: attachment; filename*0*=%%%; filename*=x''%zz\r\nContent-Transfer-Encoding: base64\r\n: no name\r\nno colon\r\n\r\n--b\r\nContent-Type\r\n\r\n====\r\n--b--b\r\n"},
		{Name: "500 levels of MIME", Text: letterHead + deep + "x\r\n"},
		{Name: "a header of 1 MB", Text: letterHead + strings.Repeat("X-Long: "+strings.Repeat("x", 900)+"\r\n", 1<<20/910) + "\r\nbody\r\n"},
		{Name: "one line of 1 MB", Text: letterHead + "\r\n" + strings.Repeat("y", 1<<20) + "\r\n"},
		{Name: "nothing at all", Text: ""},
		{Name: "a header and no empty line", Text: letterHead},
		{Name: "a body and no header", Text: "\r\nHello Meg\r\n"},
	}
	for i := range text {
		text[i].Size = int64(len(text[i].Text))
	}
	return append(text, Letter{Name: fmt.Sprintf("%d MB by reference", (large+1<<20-1)>>20), Text: letterHead + "\r\n", Size: large})
}

// Ref puts the letter where a plugin finds it: inline up to 16 KiB, else as a
// file under dir.
func (l *Letter) Ref(dir string) (*v1.MessageRef, error) {
	if l.Size <= inlineLimit {
		return &v1.MessageRef{Size: l.Size, Where: &v1.MessageRef_Inline{Inline: []byte(l.Text)}}, nil
	}
	f, err := os.CreateTemp(dir, "letter")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	const line = "A line of a longer story, which goes on and on until it is enough; 8-bit: \xe9\r\n"
	_, err = w.WriteString(l.Text)
	for left := l.Size - int64(len(l.Text)); left > 0 && err == nil; {
		n, e := w.WriteString(line[:min(left, int64(len(line)))])
		left, err = left-int64(n), e
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(f.Name())
	return &v1.MessageRef{Size: l.Size, Where: &v1.MessageRef_Path{Path: path}}, err
}

// Header splits the fields of the letter's header, as the core hands them over:
// those of names (lower case) only, if there are any.
func (l *Letter) Header(names []string) []*v1.HeaderField {
	var out []*v1.HeaderField
	head, _, _ := strings.Cut("\r\n"+l.Text, "\r\n\r\n")
	for line := range strings.SplitSeq(strings.TrimPrefix(head, "\r\n"), "\r\n") {
		if len(out) > 0 && strings.IndexAny(line, " \t") == 0 {
			last := out[len(out)-1]
			last.Value = append(last.Value, "\r\n"+line...)
		} else if name, value, ok := strings.Cut(line, ":"); ok && name != "" {
			out = append(out, &v1.HeaderField{Name: name, Value: []byte(value)})
		}
	}
	if len(names) == 0 {
		return out
	}
	var asked []*v1.HeaderField
	for _, f := range out {
		for _, n := range names {
			if strings.EqualFold(n, f.GetName()) {
				asked = append(asked, f)
			}
		}
	}
	return asked
}

// Envelope of a letter from Tom to the recipients (none: to Meg).
func Envelope(size int64, recipients ...string) *v1.Envelope {
	if len(recipients) == 0 {
		recipients = []string{"meg@ryan.example"}
	}
	e := &v1.Envelope{
		QueueId: "conform", Transaction: "conform", Sender: "tom@hanks.example", Parameters: &v1.MailParameters{}, Size: size,
		ReceivedMs: 1171494123000,
		Client: &v1.Client{
			Ip: "192.0.2.1", Port: 50000, Hello: "mx.hanks.example", Rdns: "mx.hanks.example", Tls: true, TlsVersion: "TLS1.3",
			TlsCipher: "TLS_AES_128_GCM_SHA256", Listener: "receive.smtp.mx", Protocol: "ESMTPS",
		},
	}
	for i, r := range recipients {
		e.Recipients = append(e.Recipients, &v1.Recipient{Address: r, Index: int32(i), Account: r})
	}
	return e
}
