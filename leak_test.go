package main

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stagecoach-mta/stagecoach/core/admin"
)

// holdings are what a server has, by what it is.
type holdings map[string]int

// holds counts what a restart of a plugin could leave in the server pid, in its run
// directory and in its directory for temporary files.
func (s *serving) holds(pid int, run, temp string) holds {
	s.t.Helper()
	h := holds{counted: holdings{}, files: map[string]bool{}}
	page := s.page()
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		n, ok := value(page, name)
		if !ok {
			s.t.Fatalf("%s is not on the page", name)
		}
		h.counted[name] = int(n)
	}
	h.counted["threads"] = len(entries(s.t, fmt.Sprintf("/proc/%d/task", pid)))
	for _, e := range entries(s.t, fmt.Sprintf("/proc/%d/fd", pid)) {
		target, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "fd", e))
		// The queue's tables are opened and closed as it sees fit.
		if err == nil && (!strings.HasPrefix(target, "/") || strings.HasSuffix(target, "(deleted)")) {
			h.counted["descriptors"]++
		}
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if f[1] == strconv.Itoa(pid) {
			h.counted["children"]++
			if f[0] == "Z" {
				h.counted["zombies"]++
			}
		}
	}
	for _, dir := range []string{run, temp} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				h.files[processNames.ReplaceAllString(path, "/N$1$2")] = true
				h.counted["files"]++
			}
			return nil
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return h
}

// Each process has a folder with a number, and there a socket and a file whose names
// are made for it.
var processNames = regexp.MustCompile(`/\d+(?:(/plugin(?:-dir)?)[^/]*|(/pid))?$`)

type holds struct {
	counted holdings
	files   map[string]bool
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// TestRestartsLeakNothing: after a hundred processes of plugins that were replaced,
// and some fifty that were killed, the core has what it had: goroutines, threads,
// descriptors, children of which none is dead, files, and about as much memory.
func TestRestartsLeakNothing(t *testing.T) {
	t.Parallel()
	install := builds(t)
	path, dir := onLoopback(t, "configs/dev.hcl")
	apart(t, path)
	program, temp := filepath.Join(dir, "marks"), filepath.Join(dir, "tmp")
	install(program, 1)
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(text), `receive "smtp" "mx" {`, "receive \"smtp\" \"mx\" {\n  filters = [filter.marks.all, filter.headers.seen]", 1) +
		fmt.Sprintf("filter \"marks\" \"all\" {}\nfilter \"headers\" \"seen\" { add = { \"X-Seen-By\" = \"mx\" } }\nplugin \"marks\" { path = %q }\n", program)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveProgram(t, path, dir, "TMPDIR="+temp)
	var status admin.Status
	if err := s.admin.Call(context.Background(), "GET", "/status", nil, &status); err != nil {
		t.Fatal(err)
	}
	// Over one connection: each is one of the server's descriptors.
	plugins := func() map[string]admin.Plugin {
		t.Helper()
		var all []admin.Plugin
		if err := s.admin.Call(context.Background(), "GET", "/plugins", nil, &all); err != nil {
			t.Fatal(err)
		}
		found := map[string]admin.Plugin{}
		for _, p := range all {
			found[p.Instance] = p
		}
		return found
	}
	look := func() holds { return s.holds(status.PID, filepath.Join(dir, "data", "run"), temp) }
	mail := func() {
		t.Helper()
		// A mail that meets the end of a process is put off, and sent again.
		eventually(t, func() error {
			return deliver(s.smtp, "tom@hanks.example", "meg@ryan.example", []byte("Subject: again\r\n\r\nHello Meg\r\n"))
		})
	}
	// allReady waits for a new process of each of these.
	allReady := func(before map[string]admin.Plugin, names []string) {
		t.Helper()
		eventually(t, func() error {
			now := plugins()
			for _, name := range names {
				if p := now[name]; p.State != "ready" || p.PID == before[name].PID {
					return fmt.Errorf("%s: %s, process %d", name, p.State, p.PID)
				}
			}
			return nil
		})
	}
	replaced, killed := 0, 0
	round := func(n int) {
		t.Helper()
		before := plugins()
		for _, name := range slices.Sorted(maps.Keys(before)) {
			how := "restart"
			if name == "filter.marks.all" {
				how = "reload" // which also asks the program what it is
			}
			if err := s.admin.Call(context.Background(), "POST", "/plugins/"+name+"/"+how, nil, &struct{}{}); err != nil {
				t.Fatalf("%s %s: %v", how, name, err)
			}
			replaced++
		}
		mail()
		before = plugins()
		names := []string{"filter.marks.all", "filter.headers.seen", "storage.local.mail", "directory.file.people"}
		if n%5 == 0 { // those that no mail needs, not so often that they are given up
			names = append(names, "access.imap.imap", "access.pop3.pop3")
		}
		for _, name := range names {
			if err := syscall.Kill(before[name].PID, syscall.SIGKILL); err != nil {
				t.Fatal(name, err)
			}
			killed++
		}
		mail()
		allReady(before, names)
	}
	round(0)
	before := look()
	replaced, killed = 0, 0
	rounds := 0
	for ; replaced < 100; rounds++ {
		round(rounds)
	}
	// Old processes may still be ending.
	eventually(t, func() error {
		after := look()
		for what, slack := range map[string]int{
			// A leak would be one for each of the hundred.
			"go_goroutines": 10, "threads": 20, "descriptors": 5, "process_resident_memory_bytes": 40 << 20,
			"children": 0, "zombies": 0, "files": 0,
		} {
			if was, is := before.counted[what], after.counted[what]; is > was+slack {
				return fmt.Errorf("%s: %d before, %d now; in all\n%v, now\n%v\n%v", what, was, is, before.counted, after.counted, fresh(before, after))
			}
		}
		if more := fresh(before, after); len(more) > 0 {
			return fmt.Errorf("files that were not there: %v", more)
		}
		return nil
	})
	t.Logf("%d processes replaced and %d killed: %v before, %v after", replaced, killed, before.counted, look().counted)
}

// fresh are the files that are there now and were not before.
func fresh(before, after holds) (paths []string) {
	for path := range after.files {
		if !before.files[path] {
			paths = append(paths, path)
		}
	}
	return paths
}
