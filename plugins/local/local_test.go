package local

import (
	"testing"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

func inlineMessage(s string) *v1.MessageRef { return inlineRef([]byte(s)) }

func TestDeliverAndRead(t *testing.T) {
	s, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const mail = "From: tom@hanks.example\r\nSubject: hello\r\n\r\nbody\r\n"
	resp, err := s.Deposit(t.Context(), &v1.DepositRequest{
		QueueId: "q1", Message: inlineMessage(mail), ReturnPath: "tom@hanks.example",
		Targets: []*v1.DepositRequest_Target{{Key: 0, Account: "meg@ryan.example", Recipient: "meg@ryan.example"}},
	})
	if err != nil || resp.Results[0].Problem != nil {
		t.Fatal(resp, err)
	}
	a, err := s.Open(t.Context(), "meg@ryan.example")
	if err != nil {
		t.Fatal(err)
	}
	var got string
	err = a.Fetch(t.Context(), &v1.FetchRequest{MailboxId: resp.Results[0].MailboxId, Message: true}, func(i *v1.FetchResponse_Item) error {
		got = string(i.Message.GetInline())
		return nil
	})
	want := "Return-Path: <tom@hanks.example>\r\nDelivered-To: meg@ryan.example\r\n" + mail
	if err != nil || got != want {
		t.Fatalf("%v\n%q\nwant\n%q", err, got, want)
	}
}
