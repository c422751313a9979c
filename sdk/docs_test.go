package sdk_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestEverythingIsDocumented: whoever writes a plugin has only the docs. Every
// package and every exported identifier is told of; in the packages that a plugin
// imports also every field and every method of an interface.
func TestEverythingIsDocumented(t *testing.T) {
	told := map[string]bool{} // packages
	n := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".pb.go"):
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil || f.Name.Name == "main" {
			return err
		}
		told[filepath.Dir(path)] = told[filepath.Dir(path)] || f.Doc != nil
		n++
		for _, d := range f.Decls {
			for _, missing := range undocumented(d, imported(path)) {
				t.Errorf("%s: %s has no comment", set.Position(missing.Pos()), missing.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, ok := range told {
		if !ok {
			t.Errorf("package %s has no comment", dir)
		}
	}
	if n < 30 {
		t.Errorf("only %d files found", n)
	}
}

// imported tells whether a plugin imports the file's package: the suites are
// called by their Run alone.
func imported(path string) bool {
	dir := filepath.Base(filepath.Dir(path))
	return !strings.HasPrefix(path, "conform") && (dir == "sdktest" || !strings.HasSuffix(dir, "test"))
}

// undocumented are the exported names of a declaration that nothing is said of. A
// comment above a group counts for all in it.
func undocumented(d ast.Decl, inside bool) (out []*ast.Ident) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && !(d.Recv != nil && plain(d)) {
			out = append(out, d.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.ValueSpec:
				for _, name := range s.Names {
					if name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						out = append(out, name)
					}
				}
			case *ast.TypeSpec:
				if !s.Name.IsExported() {
					continue
				}
				if d.Doc == nil && s.Doc == nil {
					out = append(out, s.Name)
				}
				about := d.Doc.Text() + s.Doc.Text()
				switch t := s.Type.(type) {
				case *ast.StructType:
					out = append(out, fields(t.Fields, about, inside)...)
				case *ast.InterfaceType:
					out = append(out, fields(t.Methods, about, inside && len(t.Methods.List) > 1)...)
				}
			}
		}
	}
	return out
}

// plain methods are the ones that every reader of Go knows.
func plain(d *ast.FuncDecl) bool {
	switch d.Name.Name {
	case "Error", "Unwrap", "String":
		return true
	}
	receiver := d.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	name, ok := receiver.(*ast.Ident)
	return ok && !name.IsExported()
}

// fields are those without a comment, and whom no other's comment, nor the
// type's own, names.
func fields(list *ast.FieldList, about string, inside bool) (out []*ast.Ident) {
	if !inside {
		return nil
	}
	for _, f := range list.List {
		about += " " + f.Doc.Text()
	}
	words := strings.FieldsFunc(about, func(r rune) bool { return !unicode.IsLetter(r) })
	for _, f := range list.List {
		for _, name := range f.Names {
			if name.IsExported() && f.Doc == nil && f.Comment == nil && !slices.Contains(words, name.Name) {
				out = append(out, name)
			}
		}
	}
	return out
}
