package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// handedIn are the packages that take clock, disk, network and dice from who makes
// them, so that a test can simulate these (promise 7 of the queue), and the places
// that may ask the machine all the same.
var handedIn = map[string][]string{
	"core/schedule": nil, // a pure step: nothing at all
	"core/queue": {
		"engine.go time.Now", "check.go time.Now", // the default, and how often a check tells of its progress
		"stop.go time.After",       // between two tries of the database on a full disk
		"reservoir.go rand.Int64N", // which messages the estimates of `queue stats` read
	},
	"core/spool": nil,
}

// machine are the names of what a package may take from the machine behind the back
// of who made it.
var machine = map[string]*regexp.Regexp{
	"time":         regexp.MustCompile(`^(Now|Since|Until|After|AfterFunc|Tick|NewTimer|NewTicker|Sleep)$`),
	"os":           regexp.MustCompile(`^(Open|Create|Stat|Lstat|Remove|Rename|Link|Symlink|Mkdir|Read|Write|Truncate|Chtimes|Chmod|DirFS)`),
	"net":          regexp.MustCompile(`^(Dial|Listen|Lookup|DefaultResolver)`),
	"math/rand/v2": regexp.MustCompile(`^(Int|Uint|Float|Perm|Shuffle|N$|Exp|Norm)`),
}

// taken lists what a file takes from the machine, as "file.go time.Now".
func taken(path string, src any) (uses []string, err error) {
	f, err := parser.ParseFile(token.NewFileSet(), path, src, 0)
	if err != nil {
		return nil, err
	}
	imported := map[string]*regexp.Regexp{}
	for _, im := range f.Imports {
		p := strings.Trim(im.Path.Value, `"`)
		name := p
		if p == "math/rand/v2" {
			name = "rand"
		}
		if im.Name != nil {
			name = im.Name.Name
		}
		if machine[p] != nil {
			imported[name] = machine[p]
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Obj == nil && imported[x.Name] != nil && imported[x.Name].MatchString(s.Sel.Name) {
				uses = append(uses, fmt.Sprintf("%s %s.%s", filepath.Base(path), x.Name, s.Sel.Name))
			}
		}
		return true
	})
	return uses, nil
}

// TestNothingIsTakenFromTheMachine: the queue and its scheduler know no
// clock, disk, network or dice but those that they are given.
func TestNothingIsTakenFromTheMachine(t *testing.T) {
	for dir, excepted := range handedIn {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		left := slices.Clone(excepted)
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			uses, err := taken(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, use := range uses {
				if !slices.Contains(excepted, use) {
					t.Errorf("%s: %s: take it from the options instead, or a simulation does not see it", dir, use)
				}
				left = slices.DeleteFunc(left, func(e string) bool { return e == use })
			}
		}
		for _, e := range left {
			t.Errorf("%s: %s is excepted and not used any more", dir, e)
		}
	}
	// Planted: what the rule is for, in a file of its own.
	for _, bug := range []string{
		`import "time"; func f() { _ = time.Now() }`,
		`import "time"; func f() { time.Sleep(1) }`,
		`import clock "time"; func f() { clock.After(1) }`,
		`import "os"; func f() { _, _ = os.ReadFile("x") }`,
		`import "os"; func f() { _ = os.Rename("x", "y") }`,
		`import "net"; func f() { _, _ = net.Dial("tcp", "x") }`,
		`import "math/rand/v2"; func f() int { return rand.IntN(2) }`,
	} {
		if uses, err := taken("planted.go", "package x\n"+bug); err != nil || len(uses) != 1 {
			t.Errorf("nobody noticed the planted bug %q: %q %v", bug, uses, err)
		}
	}
	if uses, err := taken("well.go", `package x; import ("os"; "time"); var _ = os.ErrNotExist; func f(rand interface{ IntN(int) int }) (time.Time, int) { return time.Unix(0, 0), rand.IntN(2) }`); err != nil || len(uses) != 0 {
		t.Errorf("what is allowed is refused: %q %v", uses, err)
	}
}
