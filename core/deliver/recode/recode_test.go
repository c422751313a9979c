package recode

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gomessage "github.com/emersion/go-message"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the golden files")

func from(text string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
}

func recoded(text string, form Form) (string, error) {
	m, err := New(from(text), form)
	if err != nil {
		return "", err
	}
	r, err := m.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil && int64(len(b)) != m.Size() {
		err = errors.New("it has another size than it said")
	}
	return string(b), err
}

// TestGolden: each file has a message, and what becomes of it in 7 bit and, if
// that is another, in 8 bit; or why it cannot.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			in := strings.ReplaceAll(string(a.Files[0].Data), "\n", "\r\n")
			got := &txtar.Archive{Comment: a.Comment, Files: a.Files[:1]}
			for _, f := range []struct {
				name string
				form Form
			}{{"7bit", SevenBit}, {"8bit", EightBit}} {
				out, err := recoded(in, f.form)
				if err != nil {
					out = "error: " + err.Error() + "\r\n"
				} else if d := differ(in, out); d != "" {
					t.Errorf("%s: %s", f.name, d)
				}
				if f.form == EightBit && out == in {
					continue
				}
				got.Files = append(got.Files, txtar.File{Name: f.name, Data: []byte(strings.ReplaceAll(out, "\r\n", "\n"))})
			}
			if *update {
				if err := os.WriteFile(name, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := string(txtar.Format(a)); string(txtar.Format(got)) != want && !*update {
				t.Errorf("differs:\n%s", txtar.Format(got))
			}
		})
	}
}

// leaves decodes all that a reader would see.
func leaves(text string) ([]string, error) {
	e, err := gomessage.Read(strings.NewReader(text))
	if err != nil && !gomessage.IsUnknownCharset(err) {
		return nil, err
	}
	return walk(e, "text/plain")
}

func walk(e *gomessage.Entity, otherwise string) ([]string, error) {
	var out []string
	kind := otherwise
	if e.Header.Has("Content-Type") {
		kind, _, _ = e.Header.ContentType()
	}
	otherwise = "text/plain"
	if kind == "multipart/digest" {
		otherwise = "message/rfc822"
	}
	if mr := e.MultipartReader(); mr != nil {
		for {
			p, err := mr.NextPart()
			if err == io.EOF {
				return out, nil
			}
			if err != nil && !gomessage.IsUnknownCharset(err) {
				return nil, err
			}
			more, err := walk(p, otherwise)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		}
	}
	b, err := io.ReadAll(e.Body)
	if err != nil {
		return nil, err
	}
	if kind == "message/rfc822" {
		return leaves(string(b))
	}
	return append(out, string(b)), nil
}

// differ tells how a reader would see another message.
func differ(in, out string) string {
	a, errA := leaves(in)
	b, errB := leaves(out)
	if errA != nil || errB != nil {
		if errA != nil {
			return "" // go-message does not read the original either
		}
		return "not readable: " + errB.Error()
	}
	if len(a) != len(b) {
		return "another number of parts"
	}
	for i := range a {
		// A last line without its end gets one on the way.
		if strings.TrimSuffix(a[i], "\r\n") != strings.TrimSuffix(b[i], "\r\n") {
			return "part " + a[i] + "\nbecame " + b[i]
		}
	}
	return ""
}

// formed tells what is not in form.
func formed(out string, form Form) string {
	for i := range len(out) {
		switch b := out[i]; {
		case b >= 0x80 && form == SevenBit:
			return "8-bit content"
		case b == '\n' && (i == 0 || out[i-1] != '\r'), b == '\r' && (i+1 == len(out) || out[i+1] != '\n'):
			return "a bare CR or LF"
		}
	}
	return ""
}

// What only octets can show: binary parts, and lines longer than any buffer.
func TestBinary(t *testing.T) {
	image := strings.Repeat("\x00\r\xff\n--b\r\nP\xe4", 9000)
	long := strings.Repeat("x", 32<<10-1) + "\r\n" + strings.Repeat("ä", 50_000) + "\r"
	in := "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\nContent-Transfer-Encoding: binary\r\n\r\npre\namble\r\n" +
		"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: binary\r\n\r\nplain\r\n" +
		"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: binary\r\n\r\n" + long + "\r\n" +
		"--b\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n" + strings.ReplaceAll(image, "\r\n--b", "\n--b") + "\r\n--b--\r\n"
	for _, form := range []Form{SevenBit, EightBit} {
		out, err := recoded(in, form)
		if err != nil {
			t.Fatal(err)
		}
		if s := formed(out, form); s != "" {
			t.Errorf("%d: %s", form, s)
		}
		if d := differ(in, out); d != "" {
			t.Errorf("%d: %.300s", form, d)
		}
		for _, line := range strings.Split(out, "\r\n") {
			if len(line) > 998 {
				t.Errorf("%d: a line of %d octets", form, len(line))
			}
		}
	}
}

func TestBounds(t *testing.T) {
	deep := "Content-Type: message/rfc822\r\n\r\n"
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"messages in messages": {strings.Repeat(deep, 200) + "\r\n\xff\r\n", ErrShape},
		"an endless header":    {strings.Repeat("X: y\r\n", maxHeader/6+1) + "\r\n\xff\r\n", ErrShape},
		"a digest of many":     {"Content-Type: multipart/digest; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nSubject: x\r\n\r\ny\r\n", 500) + "--b--\r\n", nil},
	} {
		if _, err := recoded(c.text, SevenBit); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("disk")
	if _, err := New(func() (io.ReadCloser, error) { return nil, broken }, SevenBit); !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, err := New(func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader([]byte("x")), failing{broken})), nil
	}, SevenBit); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// FuzzRecode: whatever comes, the result is in form, or there is a reason; and a
// second time nothing is left to do.
func FuzzRecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(strings.ReplaceAll(string(a.Files[0].Data), "\n", "\r\n"))
	}
	f.Fuzz(func(t *testing.T, in string) {
		for _, form := range []Form{SevenBit, EightBit} {
			out, err := recoded(in, form)
			if err != nil {
				continue
			}
			head, _, _ := strings.Cut(in, "\r\n\r\n")
			if strings.ContainsAny(strings.ReplaceAll(head, "\r\n", ""), "\r\n") || formed(in, EightBit) != "" {
				continue // it is no message of lines to begin with
			}
			if s := formed(out, form); s != "" {
				t.Fatalf("%s: %q became %q", s, in, out)
			}
			again, err := recoded(out, form)
			if err != nil || again != out {
				t.Fatalf("%q became %q, and then %q, %v", in, out, again, err)
			}
		}
	})
}
