package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// What a server does with the mail of a workload.
const (
	local = "local" // it is the last server of ryan.example and stores the mail
	relay = "relay" // all mail goes to the sink, without TLS
	past5 = "past5" // as relay, past five filters
)

// users of ryan.example: u0 to u99.
const users = 100

// peer is a mail server that is measured. All that it writes lies in its folder,
// on the disk that is measured.
type peer interface {
	name() string
	// prepare writes the configuration into an empty folder.
	prepare(dir, mode string, sink int) error
	// start returns once the server was started; it may not listen yet.
	start(g *group, log *os.File) error
	// stop ends all its processes.
	stop(g *group) error
	port() int
	// stored is how many mails it has put into mailboxes since it was prepared.
	stored() (int, error)
}

// tools are the programs of the postfix package.
type tools struct{ source, sink string }

// greeted waits until the server greets.
func greeted(port int, within time.Duration) error {
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(port), time.Second); err != nil {
			continue
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		var line string
		if line, err = bufio.NewReader(c).ReadString('\n'); err == nil && strings.HasPrefix(line, "220") {
			fmt.Fprint(c, "QUIT\r\n")
			c.Close()
			return nil
		}
		c.Close()
	}
	return fmt.Errorf("no greeting on port %d within %s: %w", port, within, err)
}

// loopbackUp sets the loopback interface up, which is down in a network of one's own.
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var request [40]byte // struct ifreq: a name, and flags
	copy(request[:], "lo")
	ioctl := func(what uintptr) error {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), what, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return fmt.Errorf("set loopback up: %w", errno)
		}
		return nil
	}
	if err := ioctl(syscall.SIOCGIFFLAGS); err != nil || request[16]&syscall.IFF_UP != 0 {
		return err
	}
	request[16] |= syscall.IFF_UP
	return ioctl(syscall.SIOCSIFFLAGS)
}

// sink is smtp-sink, which counts what it takes and throws it away.
type sink struct {
	g    *group
	out  string
	port int
}

func (s *sink) start(tools tools) error {
	out, err := os.Create(s.out)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := s.g.start(out, tools.sink, "-u", "nobody", "-c", "-m", "5000", "127.0.0.1:"+strconv.Itoa(s.port), "4096"); err != nil {
		return err
	}
	return greeted(s.port, 10*time.Second)
}

// taken reads the last count that smtp-sink wrote.
func (s *sink) taken() (int, error) {
	f, err := os.Open(s.out)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	end, err := f.Seek(0, 2)
	if err != nil {
		return 0, err
	}
	b := make([]byte, min(end, 4096))
	if _, err := f.ReadAt(b, end-int64(len(b))); err != nil {
		return 0, err
	}
	return lastCount(string(b)), nil
}

// lastCount finds the last whole mesg=N in what smtp-sink -c writes.
func lastCount(text string) int {
	for {
		i := strings.LastIndex(text, "mesg=")
		if i < 0 {
			return 0
		}
		if j := strings.IndexAny(text[i:], " \r\n"); j > 0 {
			n, _ := strconv.Atoi(text[i+len("mesg=") : i+j])
			return n
		}
		text = text[:i]
	}
}

// files counts those of a directory.
func files(dir string) (int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return len(names), err
}

func inNew(maildirs string) (n int, err error) {
	for u := range users {
		in, err := files(filepath.Join(maildirs, fmt.Sprintf("u%d", u), "new"))
		if err != nil {
			return 0, err
		}
		n += in
	}
	return n, nil
}
