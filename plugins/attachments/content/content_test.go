package content

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

type file struct{ name, body string }

func zipped(t testing.TB, files ...file) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		e, err := w.Create(f.name)
		if err == nil {
			_, err = io.WriteString(e, f.body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func tarred(t testing.TB, files ...file) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		err := w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.body)), Mode: 0o600})
		if err == nil {
			_, err = io.WriteString(w, f.body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func gzipped(t testing.TB, name, body string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name = name
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// locked sets the flag of a password on every entry.
func locked(z string) string {
	b := []byte(z)
	for i := 0; i+10 < len(b); i++ {
		switch string(b[i : i+4]) {
		case "PK\x03\x04":
			b[i+6] |= 1
		case "PK\x01\x02":
			b[i+8] |= 1
		}
	}
	return string(b)
}

func told(files []File) string {
	var out []string
	for _, f := range files {
		out = append(out, fmt.Sprintf("%d:%s%v", f.Depth, f.Name, f.Contents))
	}
	return strings.Join(out, " ")
}

func TestLook(t *testing.T) {
	ole := "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + strings.Repeat("x", 65600)
	nested := zipped(t, file{"a.txt", "a"}, file{"b.zip", zipped(t, file{"c.exe", "MZ\x90"})})
	for name, c := range map[string]struct{ body, want string }{
		"a.txt":   {"Hello", "0:a.txt[]"},
		"none":    {"", "0:none[]"},
		"a.exe":   {"MZ\x90\x00", "0:a.exe[executable]"},
		"a.pdf":   {"\x7fELF", "0:a.pdf[executable]"},
		"run":     {"#!/bin/sh\n", "0:run[executable]"},
		"old.doc": {ole + string(utf16("EncryptedPackage")), "0:old.doc[encrypted]"},
		// Across the border of two blocks.
		"m.xls":    {ole[:65536-14] + string(utf16("_VBA_PROJECT")) + ole, "0:m.xls[macro]"},
		"plain.ds": {ole, "0:plain.ds[]"},
		"new.docm": {zipped(t, file{"[Content_Types].xml", "<x/>"}, file{"word/vbaProject.bin", "x"}), "0:new.docm[macro] 1:[Content_Types].xml[] 1:word/vbaProject.bin[]"},
		"nested":   {nested, "0:nested[archive] 1:a.txt[] 1:b.zip[archive] 2:c.exe[executable]"},
		"l.zip":    {locked(zipped(t, file{"secret.exe", "MZ"})), "0:l.zip[archive encrypted] 1:secret.exe[]"},
		"x.tar.gz": {gzipped(t, "", tarred(t, file{"d/x.sh", "#!x"}, file{"y", "y"})), "0:x.tar.gz[archive] 1:x.tar[archive] 2:d/x.sh[executable] 2:y[]"},
		"y.gz":     {gzipped(t, "inner.exe", "MZ"), "0:y.gz[archive] 1:inner.exe[executable]"},
		"a.rar":    {"Rar!\x1a\x07\x00", "0:a.rar[archive unreadable]"},
		"a.iso":    {strings.Repeat("\x00", 0x8001) + "CD001", "0:a.iso[disk_image]"},
		"cut.zip":  {zipped(t, file{"a", strings.Repeat("a", 200)})[:60], "0:cut.zip[archive unreadable]"},
		"cut.gz":   {gzipped(t, "a", strings.Repeat("abc", 200))[:30], "0:cut.gz[archive] 1:a[unreadable]"},
		"bad.gz":   {"\x1f\x8bxx", "0:bad.gz[archive unreadable]"},
		"bad.bz2":  {"BZh9xxxxxxxxxxx", "0:bad.bz2[archive] 1:bad[unreadable]"},
	} {
		l := Limits{Depth: 4, Files: 100, Unpacked: 1 << 20}
		files, err := Look(t.Context(), name, iotest.OneByteReader(strings.NewReader(c.body)), &l)
		if got := told(files); err != nil || got != c.want {
			t.Errorf("%s: %s %v\nwant %s", name, got, err, c.want)
		}
	}
}

func TestLimits(t *testing.T) {
	deep := "MZ"
	for range 6 {
		deep = zipped(t, file{"in.zip", deep})
	}
	var many []file
	for i := range 50 {
		many = append(many, file{fmt.Sprint(i), "x"})
	}
	zeros := strings.Repeat("\x00", 4<<20)
	for name, c := range map[string]struct {
		body   string
		limits Limits
		most   int
	}{
		"deep":        {deep, Limits{3, 100, 1 << 20}, 4},
		"many":        {zipped(t, many...), Limits{3, 10, 1 << 20}, 11},
		"many in tar": {tarred(t, many...), Limits{3, 10, 1 << 20}, 11},
		"a bomb":      {zipped(t, file{"zeros", zipped(t, file{"z", zeros})}), Limits{3, 100, 1 << 20}, 3},
		"a gzip bomb": {gzipped(t, "z", gzipped(t, "y", gzipped(t, "x", zeros))), Limits{8, 100, 1 << 10}, 4},
	} {
		l := c.limits
		files, err := Look(t.Context(), name, strings.NewReader(c.body), &l)
		if err != nil || len(files) > c.most || l.Unpacked < 0 {
			t.Errorf("%s: %d files, %d octets left, %v", name, len(files), l.Unpacked, err)
		}
		// What is only told apart by its head need not be unpacked: an endless file is no fault.
		if name == "deep" || strings.HasPrefix(name, "many") {
			if !strings.Contains(told(files[:1]), "unreadable") {
				t.Errorf("%s: %s", name, told(files))
			}
		}
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("the disk is broken")
	for _, body := range []string{"", "PK\x03\x04abc", gzipped(t, "a", strings.Repeat("abcdefgh", 10000))} {
		l := Limits{4, 100, 1 << 20}
		r := io.MultiReader(strings.NewReader(body), iotest.ErrReader(broken))
		if _, err := Look(t.Context(), "a", r, &l); !errors.Is(err, broken) {
			t.Errorf("%.4q: %v", body, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Look(ctx, "a", strings.NewReader("x"), &Limits{4, 100, 1 << 20}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzLook(f *testing.F) {
	f.Add(zipped(f, file{"a.txt", "a"}, file{"b.zip", zipped(f, file{"c.exe", "MZ\x90"})}))
	f.Add(gzipped(f, "a", tarred(f, file{"x", "y"})))
	f.Add("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + string(utf16("_VBA_PROJECT")))
	f.Add("BZh9")
	f.Fuzz(func(t *testing.T, body string) {
		l := Limits{Depth: 3, Files: 20, Unpacked: 64 << 10}
		files, err := Look(t.Context(), "a", strings.NewReader(body), &l)
		if err != nil || len(files) == 0 || len(files) > 41 || l.Unpacked < 0 {
			t.Errorf("%d files, %d left, %v", len(files), l.Unpacked, err)
		}
	})
}
