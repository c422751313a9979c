// Package content tells what a file is by its octets, and looks into archives within
// bounds.
package content

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
)

// File is what was found: an attachment, or a file within one.
type File struct {
	Name  string
	Depth int // archives around it
	// Contents: executable, macro, encrypted, archive, disk_image, unreadable.
	Contents []string
}

// Limits of what is looked at; Look counts down what it used.
type Limits struct {
	Depth, Files int
	Unpacked     int64 // octets
}

// errBeyond is met where a limit is.
var errBeyond = errors.New("beyond the limits")

// head is how much of a file tells what it is: the first volume descriptor of a CD
// lies at 32 KiB.
const head = 40 << 10

// looking is one call of Look.
type looking struct {
	ctx   context.Context
	l     *Limits
	found []File
}

// Look reads a file and what lies in it. What is broken or beyond the limits is
// unreadable, and no error: that is the reader's, or the context's end.
func Look(ctx context.Context, name string, r io.Reader, l *Limits) ([]File, error) {
	k := &looking{ctx: ctx, l: l}
	if err := k.file(name, r, 0); err != nil {
		return nil, err
	}
	return k.found, nil
}

// source tells the reader's own error from a broken archive.
type source struct {
	r   io.Reader
	ctx context.Context
	err error
}

func (s *source) Read(p []byte) (int, error) {
	if s.err = s.ctx.Err(); s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// file adds one file. Its error is the mail's reader's, the context's, or, of a file
// in an archive, that a limit is reached.
func (k *looking) file(name string, r io.Reader, depth int) error {
	at := len(k.found)
	k.found = append(k.found, File{Name: name, Depth: depth})
	s := &source{r: r, ctx: k.ctx}
	err := k.sort(at, bufio.NewReaderSize(s, head), depth)
	switch beyond := errors.Is(err, errBeyond) || errors.Is(s.err, errBeyond); {
	case k.ctx.Err() != nil:
		return k.ctx.Err()
	case depth == 0 && s.err != nil:
		return s.err
	case err == nil && s.err == nil:
		return nil
	default:
		k.is(at, "unreadable")
		if beyond && depth > 0 {
			return errBeyond
		}
		return nil
	}
}

// sort tells what a file is, and looks into it.
func (k *looking) sort(at int, b *bufio.Reader, depth int) error {
	first, err := b.Peek(head)
	if err != nil && err != io.EOF {
		return err
	}
	switch kind := sniff(first); kind {
	case "":
		return nil
	case "ole":
		return k.ole(at, b)
	case "zip", "gzip", "bzip2", "tar":
		return k.open(at, kind, b, depth)
	case "sealed": // an archive of a kind that is not opened here
		k.is(at, "archive", "unreadable")
	default:
		k.is(at, kind)
	}
	return nil
}

func (k *looking) is(at int, contents ...string) {
	for _, c := range contents {
		if !slices.Contains(k.found[at].Contents, c) {
			k.found[at].Contents = append(k.found[at].Contents, c)
		}
	}
}

// magics by what they stand for.
var magics = []struct {
	kind   string
	offset int
	octets string
}{
	{"executable", 0, "MZ"}, {"executable", 0, "\x7fELF"}, {"executable", 0, "#!"},
	{"executable", 0, "\xfe\xed\xfa\xce"}, {"executable", 0, "\xfe\xed\xfa\xcf"}, {"executable", 0, "\xce\xfa\xed\xfe"}, {"executable", 0, "\xcf\xfa\xed\xfe"},
	{"executable", 0, "\xca\xfe\xba\xbe"}, {"executable", 0, "L\x00\x00\x00\x01\x14\x02\x00"}, {"executable", 0, "ITSF"},
	{"ole", 0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"},
	{"zip", 0, "PK\x03\x04"}, {"zip", 0, "PK\x05\x06"}, {"gzip", 0, "\x1f\x8b"}, {"bzip2", 0, "BZh"}, {"tar", 257, "ustar"},
	{"sealed", 0, "Rar!\x1a\x07"}, {"sealed", 0, "7z\xbc\xaf\x27\x1c"}, {"sealed", 0, "\xfd7zXZ\x00"}, {"sealed", 0, "\x28\xb5\x2f\xfd"},
	{"sealed", 0, "MSCF"}, {"sealed", 0, "\x60\xea"}, {"sealed", 7, "**ACE**"}, {"sealed", 0, "xar!"},
	{"disk_image", 0x8001, "CD001"}, {"disk_image", 0x8001, "BEA01"}, {"disk_image", 0, "conectix"}, {"disk_image", 0, "vhdxfile"}, {"disk_image", 0, "KDMV"},
	{"disk_image", 0, "QFI\xfb"},
}

func sniff(b []byte) string {
	for _, m := range magics {
		if len(b) >= m.offset+len(m.octets) && string(b[m.offset:m.offset+len(m.octets)]) == m.octets {
			return m.kind
		}
	}
	return ""
}

// utf16 is ASCII as the directory of an OLE file has it.
func utf16(s string) []byte {
	var b []byte
	for _, c := range []byte(s) {
		b = append(b, c, 0)
	}
	return b
}

var oleNames = map[string]string{"_VBA_PROJECT": "macro", "EncryptedPackage": "encrypted"}

// ole looks through an old office document for the names of its streams.
func (k *looking) ole(at int, r io.Reader) error {
	const overlap = 64
	buf := make([]byte, 64<<10)
	kept := 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		window := buf[:kept+n]
		for name, what := range oleNames {
			if bytes.Contains(window, utf16(name)) {
				k.is(at, what)
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
		kept = copy(buf, window[len(window)-overlap:])
	}
}

// budget lets through what the limits leave, and counts it down.
type budget struct {
	r io.Reader
	l *Limits
}

func (b budget) Read(p []byte) (int, error) {
	if b.l.Unpacked <= 0 {
		return 0, errBeyond
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.l.Unpacked)])
	b.l.Unpacked -= int64(n)
	return n, err
}

// within looks at a file of an archive.
func (k *looking) within(name string, r io.Reader, depth int) error {
	if k.l.Files--; k.l.Files < 0 {
		return errBeyond
	}
	return k.file(name, budget{r, k.l}, depth+1)
}

// open looks into an archive.
func (k *looking) open(at int, kind string, r io.Reader, depth int) error {
	if kind == "zip" && depth < k.l.Depth {
		return k.zip(at, r, depth)
	}
	k.is(at, "archive")
	name := path.Base(k.found[at].Name)
	switch {
	case depth >= k.l.Depth:
		return errBeyond
	case kind == "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		inner := z.Name
		if inner == "" {
			inner = strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".tgz")
		}
		return k.within(inner, z, depth)
	case kind == "bzip2":
		return k.within(strings.TrimSuffix(name, ".bz2"), bzip2.NewReader(r), depth)
	}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := k.within(h.Name, t, depth); err != nil {
			return err
		}
	}
}

// zip needs all of the file: its directory is at the end.
func (k *looking) zip(at int, r io.Reader, depth int) error {
	data, err := io.ReadAll(budget{r, k.l})
	if err != nil {
		k.is(at, "archive")
		return err
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		k.is(at, "archive")
		return err
	}
	if !slices.ContainsFunc(z.File, func(f *zip.File) bool { return f.Name == "[Content_Types].xml" || f.Name == "mimetype" }) {
		k.is(at, "archive") // the others are documents
	}
	for _, f := range z.File {
		if strings.EqualFold(path.Base(f.Name), "vbaProject.bin") {
			k.is(at, "macro")
		}
		if f.Flags&1 != 0 {
			k.is(at, "encrypted")
			k.found = append(k.found, File{Name: f.Name, Depth: depth + 1})
			if k.l.Files--; k.l.Files < 0 {
				return errBeyond
			}
			continue
		}
		in, err := f.Open()
		if err != nil {
			return err
		}
		err = k.within(f.Name, in, depth)
		in.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
