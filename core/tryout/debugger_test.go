package tryout

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDebuggerOfAScript: the interpreter is the one of the script's first line, and the
// address stays over changes.
func TestDebuggerOfAScript(t *testing.T) {
	for first, want := range map[string]string{
		"#!/usr/bin/python3\n": "/usr/bin/python3", "#!/usr/bin/python3 -E\n": "/usr/bin/python3", "#!/usr/bin/env python3\n": "python3",
		"#!/usr/bin/env -S python3 -u\n": "python3", "#!/usr/bin/env -S A=b python3\n": "python3", "": "python3",
	} {
		p := &Project{Lang: "python", Command: []string{filepath.Join(tree(t, map[string]string{"main.py*": first}), "main.py")}}
		if got := p.interpreter(); got != want {
			t.Errorf("%q: %q, want %q", first, got, want)
		}
	}
	dir := tree(t, map[string]string{"package.json": `{"main":"main.js"}`, "main.js*": "#!/usr/bin/env node\n"})
	p, err := Find(dir, nil, nil, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	node := func(string) (string, error) { return "/usr/bin/node", nil }
	first, err := p.Debugger(node)
	if err != nil {
		t.Fatal(err)
	}
	line := first.Via(p.Command)
	if want := filepath.Join(dir, "main.js"); line[0] != "/usr/bin/node" || !strings.HasPrefix(line[1], "--inspect-brk=127.0.0.1:") || line[len(line)-1] != want {
		t.Errorf("it is run by %q", line)
	}
	if p, err = p.Again(nil, nil, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	again, err := p.Debugger(node)
	if err != nil || !slices.Equal(again.Via(p.Command), line) {
		t.Errorf("after a change it is run by %q, %v", again.Via(p.Command), err)
	}
}
