package sdktest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk"
	"github.com/stagecoach-mta/stagecoach/sdk/access"
	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/deliver"
	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/directory/directorytest"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	"github.com/stagecoach-mta/stagecoach/sdk/filter"
	"github.com/stagecoach-mta/stagecoach/sdk/mail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

func people() *sdktest.Directory {
	return &sdktest.Directory{
		Users:   map[string]string{"meg@ryan.example": "sleepless"},
		Aliases: map[string][]string{"postmaster@ryan.example": {"meg@ryan.example"}},
	}
}

// TestDirectoryIsOne: the double behaves as every directory must.
func TestDirectoryIsOne(t *testing.T) {
	directorytest.Run(conform.Test(t), func(conform.T) directory.Directory { return people() }, directorytest.Options{
		Facts: conform.Facts{Address: "meg@ryan.example", Password: "sleepless", Alias: "postmaster@ryan.example"},
	})
}

// counter is an access plugin for the test: a client sends a name and a password
// in a line, and gets the number of unseen messages in INBOX.
type counter struct{ host *access.Host }

func (c *counter) Serve(ctx context.Context) error {
	for {
		conn, err := c.host.Listeners[0].Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return err
		}
		c.answer(ctx, conn)
	}
}

func (c *counter) Drain(context.Context) error { return c.host.Listeners[0].Close() }

func (c *counter) answer(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	line, _ := bufio.NewReader(conn).ReadString('\n')
	user, password, _ := strings.Cut(strings.TrimSpace(line), " ")
	unseen, err := c.unseen(ctx, user, password)
	if err != nil {
		c.host.Log.Warn().Str("user", user).Err(err).Msg("not counted")
		fmt.Fprintf(conn, "%v\n", fail.KindOf(err))
		return
	}
	fmt.Fprintf(conn, "%d\n", unseen)
}

func (c *counter) unseen(ctx context.Context, user, password string) (uint32, error) {
	who, err := c.host.Directory.Authenticate(ctx, &v1.AuthenticateRequest{Username: user, Password: password})
	if err != nil {
		return 0, err
	}
	a, err := c.host.Storage.Open(ctx, who.GetAccount())
	if err != nil {
		return 0, err
	}
	boxes, err := a.List(ctx, &v1.ListMailboxesRequest{Name: "INBOX"})
	if err != nil {
		return 0, err
	}
	return boxes.GetMailboxes()[0].GetUnseen(), nil
}

// TestAccessPluginWithDoubles is what an author of an access plugin writes.
func TestAccessPluginWithDoubles(t *testing.T) {
	store, who := sdktest.NewStorage(t.TempDir()), people()
	store.Put("meg@ryan.example", "INBOX", "Subject: one\n\nhello\n")
	store.Put("meg@ryan.example", "INBOX", "Subject: two\n\nhello\n", `\Seen`)
	store.Put("meg@ryan.example", "Lists/Go", "Subject: three\n\nhello\n")
	var address string
	in := sdktest.Start(t, sdk.Plugin{Name: "counter", Version: "1", Access: func(_ context.Context, in *sdk.Instance) (access.Server, error) {
		return &counter{in.Access}, nil
	}}, nil, sdktest.WithStorage(store), sdktest.WithDirectory(who), sdktest.Listen(&address))

	ask := func(line string) string {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%s\n", line)
		answer, _ := bufio.NewReader(conn).ReadString('\n')
		return strings.TrimSpace(answer)
	}
	if got := ask("meg@ryan.example sleepless"); got != "1" {
		t.Errorf("unseen: %s, want 1", got)
	}
	if got := ask("meg@ryan.example wrong"); got != "DENIED" {
		t.Errorf("a wrong password: %s", got)
	}
	if n := who.Logins(); n != 2 {
		t.Errorf("the directory was asked %d times", n)
	}
	if log := in.Log(); len(log) != 1 || log[0].Level != "warn" || log[0].Message != "not counted" || log[0].Fields["user"] != "meg@ryan.example" {
		t.Errorf("the log has %v", log)
	}
	who.FailWith(fail.New(fail.Unavailable, "away"))
	if got := ask("meg@ryan.example sleepless"); got != "UNAVAILABLE" {
		t.Errorf("with a directory that is away: %s", got)
	}
}

// told is a filter that notes what it is asked.
var told = sdk.Plugin{
	Name: "told", Version: "1",
	Interest: &v1.FilterInterest{
		Effect: v1.FilterInterest_JUDGE, Body: v1.FilterInterest_FULL,
		Events: []v1.FilterEvent{
			v1.FilterEvent_CONNECT, v1.FilterEvent_HELLO, v1.FilterEvent_AUTH, v1.FilterEvent_MAIL, v1.FilterEvent_RCPT,
			v1.FilterEvent_RCPT_REJECTED, v1.FilterEvent_ENVELOPE, v1.FilterEvent_MESSAGE, v1.FilterEvent_ROUTE,
			v1.FilterEvent_PRE_DELIVERY, v1.FilterEvent_RESULT, v1.FilterEvent_OBSERVE,
		},
	},
	Filter: func(context.Context, *sdk.Instance) (filter.Filter, error) {
		return filter.Func(func(_ context.Context, ev *filter.Event) (*filter.Verdict, error) {
			env := ev.Envelope
			note := fmt.Sprintf("hello=%s user=%s from=%s to=%d", env.GetClient().GetHello(), env.GetClient().GetUser(), env.GetSender(), len(env.GetRecipients()))
			note += fmt.Sprintf(" queued=%t one=%s subject=%s message=%t", env.GetQueueId() != "", ev.Recipient.GetAddress(), ev.Header.Get("subject"), ev.Message != nil)
			for _, r := range ev.Results {
				note += fmt.Sprintf(" %s %d", r.GetState(), r.GetReply().GetCode())
			}
			for _, o := range ev.Observations {
				note += fmt.Sprintf(" %d:%s", o.GetSequence(), o.GetWhat())
			}
			return filter.Accept().Note(note), nil
		}), nil
	},
}

// TestEveryMoment: each event has what the contract's table says.
func TestEveryMoment(t *testing.T) {
	const (
		meg, text = "meg@ryan.example", "Subject: hi\n\nhello\n"
		greeted   = "hello=mx.hanks.example user= from=tom@hanks.example"
	)
	ask := sdktest.Filter(t, told, nil)
	seen := map[v1.FilterEvent]bool{}
	for _, c := range []struct {
		call *v1.FilterCall
		want string
	}{
		{sdktest.Connect(), "hello= user= from= to=0 queued=false one= subject= message=false"},
		{sdktest.Hello(), "hello=mx.hanks.example user= from= to=0 queued=false one= subject= message=false"},
		{sdktest.Auth(meg, true), "hello=mx.hanks.example user=meg@ryan.example from= to=0 queued=false one= subject= message=false"},
		{sdktest.Mail(), greeted + " to=0 queued=false one= subject= message=false"},
		{sdktest.Rcpt("joe@ryan.example", meg), greeted + " to=2 queued=false one=meg@ryan.example subject= message=false"},
		{sdktest.RcptRejected("joe@ryan.example", 550, "5.1.1", "No"), greeted + " to=1 queued=false one=joe@ryan.example subject= message=false rejected 550"},
		{sdktest.Envelope(meg, "joe@ryan.example"), greeted + " to=2 queued=false one= subject= message=false"},
		{sdktest.Message(t, text), greeted + " to=1 queued=false one= subject=hi message=true"},
		{sdktest.Route(t, text), greeted + " to=1 queued=true one= subject=hi message=true"},
		{sdktest.PreDelivery(t, text), greeted + " to=1 queued=true one= subject=hi message=true"},
		{sdktest.Result(meg, "deferred", 451, "4.4.1", "Later"), greeted + " to=1 queued=true one= subject= message=false deferred 451"},
		{
			sdktest.Observe(&v1.Observation{What: v1.Observation_QUEUED}, &v1.Observation{What: v1.Observation_DELIVERED, Sequence: 7}),
			"hello= user= from= to=0 queued=false one= subject= message=false 1:QUEUED 7:DELIVERED",
		},
	} {
		seen[c.call.GetEvent()] = true
		reply, err := ask(c.call)
		if err != nil {
			t.Fatal(err)
		}
		if reply.GetNote() != c.want {
			t.Errorf("%s: %s\nwant %s", c.call.GetEvent(), reply.GetNote(), c.want)
		}
	}
	for n, name := range v1.FilterEvent_name {
		if n != 0 && !seen[v1.FilterEvent(n)] {
			t.Errorf("no event of the kind %s", name)
		}
	}
}

// TestDelivery: a deliver plugin's author asks it as the core does.
func TestDelivery(t *testing.T) {
	in := sdktest.Start(t, sdk.Plugin{Name: "out", Version: "1", Deliver: func(context.Context, *sdk.Instance) (deliver.Deliverer, error) {
		return sized{}, nil
	}}, nil)
	large := "Subject: large\n\n" + strings.Repeat("line\n", 10_000)
	got, err := deliver.NewClient(in.Caller).Deliver(sdktest.Context(t), sdktest.Delivery(t, large, "meg@ryan.example", "joe@ryan.example"))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprint(len(large) + 10_002); len(got.GetOutcomes()) != 2 || got.GetOutcomes()[1].GetReply().GetText() != want {
		t.Errorf("outcomes are %v, want two of %s octets", got.GetOutcomes(), want)
	}
}

// sized delivers nowhere and tells how large the message was.
type sized struct{}

func (sized) Deliver(_ context.Context, req *v1.DeliverCall) (*v1.DeliverReply, error) {
	b, err := mail.FromRef(req.GetMessage()).Bytes(0)
	if err != nil {
		return nil, err
	}
	out := &v1.DeliverReply{}
	for _, r := range req.GetEnvelope().GetRecipients() {
		out.Outcomes = append(out.Outcomes, &v1.DeliverOutcome{
			Recipient: r.GetIndex(), Reply: &v1.SMTPReply{Code: 250, Text: fmt.Sprint(len(b))},
		})
	}
	return out, nil
}
