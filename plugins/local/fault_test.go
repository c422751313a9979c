package local

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// disk is a disk that can be made to fail.
type disk struct {
	sync.Mutex
	syncOf string // a sync of a path that holds this fails, once; "" until it is armed
	full   bool   // nothing can be made or written
	failed string
	again  int // syncs of failed after its failure
}

func (d *disk) inject(op errorfs.Op) error {
	d.Lock()
	defer d.Unlock()
	switch op.Kind {
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		switch {
		case d.failed != "" && op.Path == d.failed:
			d.again++
		case d.failed == "" && d.syncOf != "" && strings.Contains(op.Path, d.syncOf):
			d.failed = op.Path
			return syscall.EIO
		}
	case errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpMkdirAll:
		if d.full && strings.Contains(op.Path, "blobs") {
			return syscall.ENOSPC
		}
	}
	return nil
}

func (d *disk) set(f func()) {
	d.Lock()
	defer d.Unlock()
	f()
}

func toMeg(id, text string) *v1.DepositRequest {
	return &v1.DepositRequest{QueueId: id, Message: inlineMessage(text), Targets: []*v1.DepositRequest_Target{{Account: "meg@ryan.example"}}}
}

// TestNothingGoesOnAfterAFailedSync: whichever file it is, the process ends with
// nothing acknowledged, and what was acknowledged before is there.
func TestNothingGoesOnAfterAFailedSync(t *testing.T) {
	large := "Subject: large\r\n\r\n" + strings.Repeat("x\r\n", smallBody)
	for _, c := range []struct{ name, path, text string }{
		{"the log", ".log", "Subject: small\r\n\r\nx\r\n"},
		{"a large message", ".eml", large},
		{"its directory", "blobs/0", large},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem, d := vfs.NewCrashableMem(), &disk{}
			exited := make(chan int, 1)
			s := open(t, Options{
				Dir: "store", FS: errorfs.Wrap(mem, errorfs.InjectorFunc(d.inject)),
				Exit: func(code int) {
					select {
					case exited <- code:
					default:
					}
					select {} // as far as a test can end the process: what it held stays locked
				},
			})
			if resp, err := s.Deposit(t.Context(), toMeg("kept", large)); err != nil || resp.Results[0].Problem != nil {
				t.Fatal(resp, err)
			}
			d.set(func() { d.syncOf = c.path })
			said := make(chan string, 1)
			go func() {
				resp, err := s.Deposit(t.Context(), toMeg("lost", c.text))
				said <- fmt.Sprint(resp, err)
			}()
			select {
			case code := <-exited:
				if code != 70 {
					t.Errorf("the process ends with %d, want 70", code)
				}
			case answer := <-said:
				t.Fatalf("the deposit whose sync failed was answered with %s", answer)
			case <-time.After(20 * time.Second):
				t.Fatal("the process does not end")
			}
			d.set(func() {
				if d.failed == "" || d.again != 0 {
					t.Errorf("%q was synced %d times after its sync had failed", d.failed, d.again)
				}
			})
			after := open(t, Options{Dir: "store", FS: mem.CrashClone(vfs.CrashCloneCfg{})})
			defer after.Close()
			resp, err := after.Deposit(t.Context(), toMeg("kept", large))
			if err != nil || resp.Results[0].Problem != nil || resp.Results[0].Uid != 1 {
				t.Errorf("what was acknowledged: %v %v", resp, err)
			}
			resp, err = after.Deposit(t.Context(), toMeg("lost", c.text)) // the queue repeats it
			if err != nil || resp.Results[0].Problem != nil || resp.Results[0].Uid != 2 {
				t.Errorf("what was not acknowledged: %v %v", resp, err)
			}
			if err := integrity(after); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAFullDiskIsTemporary: the mail waits in the queue, nothing is left of it
// here, and removing still works.
func TestAFullDiskIsTemporary(t *testing.T) {
	mem, d := vfs.NewMem(), &disk{}
	s := open(t, Options{
		Dir: "store", FS: errorfs.Wrap(mem, errorfs.InjectorFunc(d.inject)),
		Exit: func(int) { t.Error("a full disk ended the process"); runtime.Goexit() },
	})
	defer s.Close()
	large := "Subject: large\r\n\r\n" + strings.Repeat("x\r\n", smallBody)
	if _, err := s.Deposit(t.Context(), toMeg("first", large)); err != nil {
		t.Fatal(err)
	}
	d.set(func() { d.full = true })
	resp, err := s.Deposit(t.Context(), toMeg("second", large))
	if err == nil {
		err = fail.FromProblem(resp.Results[0].GetProblem())
	}
	if !fail.Is(err, fail.NoSpace) || fail.Reply(err).GetCode()/100 != 4 {
		t.Errorf("a deposit on a full disk: %v, %v", err, fail.Reply(err))
	}
	a, err := s.Open(t.Context(), "meg@ryan.example")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Expunge(t.Context(), &v1.ExpungeRequest{MailboxId: "F1", Uids: []*v1.UIDRange{{First: 1, Last: 1}}, Force: true}); err != nil {
		t.Errorf("removing on a full disk: %v", err)
	}
	d.set(func() { d.full = false })
	resp, err = s.Deposit(t.Context(), toMeg("second", large))
	if err != nil || resp.Results[0].Problem != nil {
		t.Errorf("when there is room again: %v %v", resp, err)
	}
	s.collect()
	if err := integrity(s); err != nil {
		t.Error(err)
	}
}

// TestBelowMinFreeNothingIsStored: what is kept free lets people clean up.
func TestBelowMinFreeNothingIsStored(t *testing.T) {
	s := open(t, Options{Dir: "store", FS: lowDisk{vfs.NewMem()}, MinFreeBytes: 1})
	defer s.Close()
	if _, err := s.Deposit(t.Context(), toMeg("fits", "Subject: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	s.opts.MinFreeBytes = 64 << 20
	resp, err := s.Deposit(t.Context(), toMeg("not", "Subject: x\r\n\r\n"))
	if err == nil {
		err = fail.FromProblem(resp.Results[0].GetProblem())
	}
	if !fail.Is(err, fail.NoSpace) || !strings.Contains(err.Error(), "MiB left") {
		t.Errorf("a deposit below min_free: %v", err)
	}
	if err := s.Health(); !fail.Is(err, fail.NoSpace) {
		t.Errorf("its health: %v", err)
	}
}

type lowDisk struct{ vfs.FS }

func (lowDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: 9 << 20, TotalBytes: 1 << 30}, nil
}
