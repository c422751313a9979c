package tryout

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Debugger starts a program stopped, and says how to get hold of it.
type Debugger struct {
	// Name of the debugger; "" if there is none: the program then runs, and Say
	// tells how to attach to it.
	Name string
	// Via makes the command line; nil without a Name.
	Via func(command []string) []string
	// Say are lines for a person; %d in them is the process.
	Say []string
}

// Debugger that this machine has for the project. lookPath finds programs. Its address
// stays for as long as the project is worked on, so that a client may connect again
// after a change.
func (p *Project) Debugger(lookPath func(string) (string, error)) (*Debugger, error) {
	if p.debugAt == "" {
		var err error
		if p.debugAt, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	addr := p.debugAt
	_, port, _ := net.SplitHostPort(addr)
	switch p.Lang {
	case "go":
		dlv, err := lookPath("dlv")
		if err != nil {
			break
		}
		return &Debugger{
			Name: "dlv",
			Via: func(command []string) []string {
				// Delve's own words go to stderr: on stdout stands the handshake alone.
				out := []string{
					dlv, "exec", "--headless", "--api-version=2", "--accept-multiclient", "--listen=" + addr,
					"--log-dest=2", "--check-go-version=false", command[0],
				}
				if len(command) > 1 {
					out = append(append(out, "--"), command[1:]...)
				}
				return out
			},
			Say: []string{
				"dlv connect " + addr,
				fmt.Sprintf(`or in VS Code: {"type": "go", "request": "attach", "mode": "remote", "host": "127.0.0.1", "port": %s}`, port),
				"Set breakpoints, then continue.",
			},
		}, nil
	case "node":
		node, err := lookPath("node")
		if err != nil {
			break
		}
		return &Debugger{
			Name: "node --inspect-brk",
			Via: func(command []string) []string {
				return append([]string{node, "--inspect-brk=" + addr}, command[script(command):]...)
			},
			Say: []string{
				"node inspect " + addr,
				fmt.Sprintf(`or in VS Code: {"type": "node", "request": "attach", "port": %s}; or chrome://inspect`, port),
				"Set breakpoints, then continue.",
			},
		}, nil
	case "python":
		python := p.interpreter()
		if exec.Command(python, "-c", "import debugpy").Run() != nil {
			break
		}
		return &Debugger{
			Name: "debugpy",
			Via: func(command []string) []string {
				// Frozen modules hide from a debugger; a Python without them passes over the option.
				return append([]string{python, "-X", "frozen_modules=off", "-m", "debugpy", "--listen", addr, "--wait-for-client"}, command[script(command):]...)
			},
			Say: []string{
				fmt.Sprintf(`in VS Code: {"type": "debugpy", "request": "attach", "connect": {"host": "127.0.0.1", "port": %s}}`, port),
				"or any other client of the debug adapter protocol, at " + addr + ", when it listens: in a second or two",
			},
		}, nil
	}
	say := map[string][]string{
		"go":     {"dlv attach %d", "Delve on your PATH would have started it stopped: go install github.com/go-delve/delve/cmd/dlv@latest"},
		"python": {"python3 -m pdb -p %d (from Python 3.14 on)", "The module debugpy would have started it stopped: pip install debugpy"},
	}[p.Lang]
	if say == nil {
		say = []string{"gdb -p %d"}
	}
	return &Debugger{Say: say}, nil
}

// script is where in a command line the script stands: behind its interpreter, if
// that is named.
func script(command []string) int {
	if len(command) > 1 && filepath.Ext(command[0]) == "" {
		return 1
	}
	return 0
}

// interpreter of a Python project: as its first line says.
func (p *Project) interpreter() string {
	if script(p.Command) == 1 {
		return p.Command[0]
	}
	f, err := os.Open(p.Command[0])
	if err != nil {
		return "python3"
	}
	defer f.Close()
	line, _ := bufio.NewReader(f).ReadString('\n')
	words := strings.Fields(strings.TrimPrefix(line, "#!"))
	for _, w := range words {
		// As in "#!/usr/bin/env -S python3 -u".
		if filepath.Base(w) != "env" && !strings.HasPrefix(w, "-") && !strings.Contains(w, "=") {
			return w
		}
	}
	return "python3"
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Traced tells whether a debugger holds the process (ptrace(2)).
func Traced(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(b), "\nTracerPid:")
	tracer, _, _ := strings.Cut(after, "\n")
	tracer = strings.TrimSpace(tracer)
	return tracer != "" && tracer != "0"
}
