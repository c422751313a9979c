package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// dies ends the plugin the first n times that it is asked about path.
func dies(word string) {
	var n int
	var path string
	if _, err := fmt.Sscanf(word, "dies=%d,%s", &n, &path); err != nil {
		return
	}
	for k := range n {
		if os.Mkdir(fmt.Sprint(path, k), 0o700) == nil {
			os.Exit(7)
		}
	}
}

// serveData answers storages' and directories' calls with the pid; nil for others.
func serveData(call *v1.Call) *v1.Reply {
	pid := fmt.Sprint(os.Getpid())
	switch {
	case call.GetStorage().GetDeposit() != nil:
		dies(call.GetStorage().GetDeposit().GetTargets()[0].GetMailbox())
		return &v1.Reply{Response: &v1.Reply_Storage{Storage: &v1.StorageReply{Op: &v1.StorageReply_Deposit{
			Deposit: &v1.DepositResponse{Results: []*v1.DepositResponse_Result{{MailboxId: pid}}}}}}}
	case call.GetStorage() != nil:
		dies(call.GetStorage().GetAppend().GetMailboxId())
		return &v1.Reply{Response: &v1.Reply_Storage{Storage: &v1.StorageReply{}}}
	case call.GetDirectory() != nil:
		dies(call.GetDirectory().GetResolve().GetAddress())
		return &v1.Reply{Response: &v1.Reply_Directory{Directory: &v1.DirectoryReply{Op: &v1.DirectoryReply_Resolve{
			Resolve: &v1.ResolveResponse{Account: pid}}}}}
	}
	return nil
}

// A deposit or a question to a directory that meets the end of its process is asked
// again at once; what may not happen twice is not, nor what ends every process.
func TestWhatDoesNoHarmIsAskedAgain(t *testing.T) {
	deposit := func(word string) *v1.Call {
		return &v1.Call{Request: &v1.Call_Storage{Storage: &v1.StorageCall{Op: &v1.StorageCall_Deposit{
			Deposit: &v1.DepositRequest{Targets: []*v1.DepositRequest_Target{{Mailbox: word}}}}}}}
	}
	add := func(word string) *v1.Call {
		return &v1.Call{Request: &v1.Call_Storage{Storage: &v1.StorageCall{Op: &v1.StorageCall_Append{
			Append: &v1.AppendRequest{MailboxId: word}}}}}
	}
	resolve := func(word string) *v1.Call {
		return &v1.Call{Request: &v1.Call_Directory{Directory: &v1.DirectoryCall{Op: &v1.DirectoryCall_Resolve{
			Resolve: &v1.ResolveRequest{Address: word}}}}}
	}
	h, _ := testHost(t)
	s := filterSpec("storage.test.a", "kind=storage")
	s.Kind = v1.Kind_KIND_STORAGE
	if _, err := provision(h, s); err != nil {
		t.Fatal(err)
	}
	i := h.Instance(s.Instance)
	dir := t.TempDir()
	for _, test := range []struct {
		name  string
		call  func(word string) *v1.Call
		dies  int
		fails bool
	}{
		{"deposit", deposit, 1, false},
		{"deposit, twice", deposit, 2, false},
		{"deposit that ends every process", deposit, 9, true},
		{"resolve", resolve, 1, false},
		{"append", add, 1, true},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		restarts, path := i.Info().Restarts, filepath.Join(dir, test.name[:4]+fmt.Sprint(test.dies))
		_, err := i.Call(ctx, test.call(fmt.Sprintf("dies=%d,%s", test.dies, path)))
		if fail.Is(err, fail.Unavailable) != test.fails || !test.fails && err != nil {
			t.Errorf("%s: %v, want it to fail: %v", test.name, err, test.fails)
		}
		ended := min(test.dies, 3)
		eventually(t, test.name+": all processes that ended were replaced", func() bool {
			info := i.Info()
			return info.State == Ready && info.Restarts == restarts+ended
		})
		cancel()
	}
}
