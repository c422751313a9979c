package tryout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Project is what an author names on the command line: a folder with a plugin's
// source, a program, or a bundled plugin.
type Project struct {
	// Name in a person's words: the path as it was written.
	Name string
	// Lang is "go", "python" or "node"; "" for a program of unknown make.
	Lang string
	// Dir is the project's folder, absolute; "" for a bundled plugin.
	Dir string
	// Command runs the program, once it is built; empty: bundled.
	Command []string
	// Bundled names a plugin in this binary; "" for others.
	Bundled string
	// built: Command[0] is made by Build.
	built bool
	// endings of the files that are its source.
	endings []string
	// debugAt is where its debugger listens; "" until there is one.
	debugAt string
}

// Again is the project as it is now: after a change its program may be another one.
func (p *Project) Again(args, bundled []string, out string) (*Project, error) {
	next, err := Find(p.Name, args, bundled, out)
	if err == nil {
		next.debugAt = p.debugAt
	}
	return next, err
}

// BuildError is what the compiler had to say.
type BuildError struct{ Output string }

func (e *BuildError) Error() string { return e.Output }

var errNoProject = errors.New("there is no plugin project")

// Find looks what is at path: a folder is a Go project, a Node package or one with
// a Python program; a file is run, or the interpreter that it is for. args are the
// program's own. Built programs go into the folder out.
func Find(path string, args []string, bundled []string, out string) (*Project, error) {
	p := &Project{Name: path}
	if slices.Contains(bundled, path) {
		if len(args) > 0 {
			return nil, fmt.Errorf("the bundled plugin %q takes no arguments", path)
		}
		p.Bundled = path
		return p, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && !strings.ContainsRune(path, filepath.Separator) {
		if path, err = exec.LookPath(path); err == nil {
			info, err = os.Stat(path)
		} else {
			err = fmt.Errorf("there is no folder, program or bundled plugin %q here", p.Name)
		}
	}
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		p.Dir = abs
		return p, p.folder(args, out)
	}
	p.Dir = filepath.Dir(abs)
	switch ext := filepath.Ext(abs); {
	case ext == ".go":
		return p, p.folder(args, out)
	case p.script(abs, args):
	case info.Mode()&0o111 == 0:
		return nil, fmt.Errorf("%s may not be executed: make it a program with `chmod +x %s`", p.Name, p.Name)
	default:
		p.Command = append([]string{abs}, args...)
		// An interpreter's script is an argument.
		for _, a := range args {
			if file, err := filepath.Abs(a); err == nil && isFile(file) {
				p.Dir = filepath.Dir(file)
				p.source(filepath.Ext(file))
				break
			}
		}
	}
	return p, nil
}

func (p *Project) folder(args []string, out string) error {
	if here, _ := filepath.Glob(filepath.Join(p.Dir, "*.go")); len(here) > 0 {
		p.source(".go")
		p.built = true
		name := filepath.Base(p.Dir)
		p.Command = append([]string{filepath.Join(out, name)}, args...)
		return nil
	}
	file, err := p.main()
	if err != nil {
		return err
	}
	if !p.script(file, args) {
		p.Command = append([]string{file}, args...)
	}
	return nil
}

// script runs a file by its first line if it has one and may be executed, else by
// its language; false for what is no script.
func (p *Project) script(file string, args []string) bool {
	if !p.source(filepath.Ext(file)) {
		return false
	}
	info, err := os.Stat(file)
	if err == nil && info.Mode()&0o111 != 0 && startsWith(file, "#!") {
		p.Command = append([]string{file}, args...)
		return true
	}
	interpreter := map[string]string{"python": "python3", "node": "node"}[p.Lang]
	if full, err := exec.LookPath(interpreter); err == nil {
		interpreter = full
	}
	p.Command = append([]string{interpreter, file}, args...)
	return true
}

// source sets the language by a file's ending.
func (p *Project) source(ext string) bool {
	for lang, endings := range map[string][]string{
		"go": {".go", ".mod", ".sum"}, "python": {".py"}, "node": {".js", ".mjs", ".cjs", ".ts", "package.json"},
	} {
		if slices.Contains(endings, ext) {
			p.Lang, p.endings = lang, endings
			return true
		}
	}
	return false
}

// main finds the program of a Node or Python project.
func (p *Project) main() (string, error) {
	var node struct {
		Name string
		Main string
	}
	b, err := os.ReadFile(filepath.Join(p.Dir, "package.json"))
	if err == nil {
		if err := json.Unmarshal(b, &node); err != nil {
			return "", fmt.Errorf("%s: %w", filepath.Join(p.Name, "package.json"), err)
		}
		names := []string{node.Main, filepath.Base(node.Name) + ".js", "index.js", "main.js"}
		for _, name := range names {
			if file := filepath.Join(p.Dir, name); name != "" && isFile(file) {
				return file, nil
			}
		}
		return "", fmt.Errorf("%s names no program: add \"main\": \"plugin.js\" to it, or name the program itself", filepath.Join(p.Name, "package.json"))
	}
	found, err := filepath.Glob(filepath.Join(p.Dir, "*.py"))
	if err != nil {
		return "", err
	}
	found = slices.DeleteFunc(found, func(f string) bool {
		name := filepath.Base(f)
		return strings.HasPrefix(name, "test_") || strings.HasSuffix(name, "_test.py") || name == "conftest.py" || name == "setup.py"
	})
	for _, name := range []string{"main.py", "__main__.py", strings.ReplaceAll(filepath.Base(p.Dir), "-", "_") + ".py"} {
		if f := filepath.Join(p.Dir, name); slices.Contains(found, f) {
			return f, nil
		}
	}
	programs := slices.DeleteFunc(slices.Clone(found), func(f string) bool { return !startsWith(f, "#!") })
	switch {
	case len(programs) == 1:
		return programs[0], nil
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", fmt.Errorf("which of the programs in %s is the plugin? Name it: %s", p.Name, found[0])
	}
	return "", fmt.Errorf("%w in %s: no Go files, no package.json, no Python program. Name the program itself, or begin with `stagecoach plugin new`", errNoProject, p.Name)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func startsWith(file, magic string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, len(magic))
	n, _ := f.Read(b)
	return string(b[:n]) == magic
}

// Build makes the program, if it is one that is built. debug leaves in what a
// debugger needs. What the compiler finds wrong is a *BuildError.
func (p *Project) Build(ctx context.Context, debug bool) (took time.Duration, err error) {
	if !p.built {
		return 0, nil
	}
	begin := time.Now()
	args := []string{"build", "-o", p.Command[0]}
	if debug {
		args = append(args, "-gcflags=./...=-N -l") // the author's own packages
	}
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	// The compiler is a child of go: a Ctrl-C ends both.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Dir = p.Dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var failed *exec.ExitError
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.As(err, &failed):
		err = &BuildError{strings.TrimSpace(out.String())}
	}
	return time.Since(begin), err
}

// Built tells whether a Build makes something.
func (p *Project) Built() bool { return p.built }

// passedOver are folders that hold no source of the author's.
var passedOver = []string{"node_modules", "__pycache__", "vendor", "testdata"}

// maxWatched bounds a look at a folder that is no project.
const maxWatched = 5000

// stamp is what a file looked like.
type stamp struct {
	size int64
	mod  time.Time
}

// Snapshot is what the project's files, and others beside, look like now. Two that
// differ are a change.
type Snapshot map[string]stamp

// Look makes a snapshot. What a plugin writes beside its source is no change.
func (p *Project) Look(others ...string) Snapshot {
	s := Snapshot{}
	for _, f := range others {
		s.add(f)
	}
	if p.Dir == "" {
		return s
	}
	if len(p.Command) > 0 && !p.built {
		s.add(p.Command[0])
	}
	_ = filepath.WalkDir(p.Dir, func(path string, d fs.DirEntry, err error) error {
		switch name := filepath.Base(path); {
		case err != nil:
			return nil // gone while we looked: the next look tells
		case len(s) > maxWatched:
			return fs.SkipAll
		case d.IsDir() && path != p.Dir && (strings.HasPrefix(name, ".") || slices.Contains(passedOver, name)):
			return fs.SkipDir
		case !d.IsDir() && (slices.Contains(p.endings, filepath.Ext(name)) || slices.Contains(p.endings, name)):
			s.add(path)
		}
		return nil
	})
	return s
}

func (s Snapshot) add(path string) {
	if info, err := os.Stat(path); err == nil {
		s[path] = stamp{info.Size(), info.ModTime()}
	}
}

// Changed names a file that is not as it was; "" if all are.
func (s Snapshot) Changed(before Snapshot) string {
	var names []string
	for f, at := range s {
		if before[f] != at {
			names = append(names, f)
		}
	}
	for f := range before {
		if _, there := s[f]; !there {
			names = append(names, f)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return slices.Min(names)
}

// pollInterval between two looks.
const pollInterval = 200 * time.Millisecond

// Watch returns the file that changed since before, once no more change: an editor
// may write several. It ends with ctx.
func (p *Project) Watch(ctx context.Context, before Snapshot, others ...string) (string, error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	changed, last := "", before
	for {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-tick.C:
		}
		now := p.Look(others...)
		if now.Changed(last) == "" && changed != "" {
			return changed, nil
		}
		if f := now.Changed(before); f != "" {
			changed = f
		}
		last = now
	}
}
