package directory_test

import (
	"fmt"
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/directory"
	"github.com/stagecoach-mta/stagecoach/sdk/fail"
)

func TestTokenRequest(t *testing.T) {
	const bad = "INVALID"
	for _, c := range []struct{ mechanism, response, want string }{
		{"OAUTHBEARER", "n,a=meg@ryan.example,\x01host=mx.ryan.example\x01port=143\x01auth=Bearer t0.k-en\x01\x01", "meg@ryan.example t0.k-en mx.ryan.example:143"},
		{"OAUTHBEARER", "n,,\x01auth=bearer t\x01\x01", " t :0"},
		{"OAUTHBEARER", "y,a=o=2Cne=3Dtwo,\x01auth=Bearer t\x01\x01", "o,ne=two t :0"},
		{"OAUTHBEARER", "n,,\x01future=x=y\x01auth=Bearer t\x01\x01", " t :0"},
		{"OAUTHBEARER", "n,,\x01\x01", "  :0"}, // RFC 7628 section 4.3: what is offered here?
		{"OAUTHBEARER", "n,a=m=40x,\x01auth=Bearer t\x01\x01", bad},
		{"OAUTHBEARER", "n,meg,\x01auth=Bearer t\x01\x01", bad},
		{"OAUTHBEARER", "p=tls-exporter,,\x01auth=Bearer t\x01\x01", bad},
		{"OAUTHBEARER", "n,,\x01auth=Bearer t\x01", bad},
		{"OAUTHBEARER", "n,,auth=Bearer t\x01\x01", bad},
		{"OAUTHBEARER", "n,,\x01auth=Basic t\x01\x01", bad},
		{"OAUTHBEARER", "n,,\x01port=70000\x01auth=Bearer t\x01\x01", bad},
		{"OAUTHBEARER", "n,,\x01auth\x01\x01", bad},
		{"OAUTHBEARER", "", bad},
		{"XOAUTH2", "user=meg@ryan.example\x01auth=Bearer t\x01\x01", "meg@ryan.example t :0"},
		{"XOAUTH2", "user=meg@ryan.example\x01auth=Bearer t", bad},
		{"XOAUTH2", "", bad},
	} {
		req, err := directory.TokenRequest(c.mechanism, c.response)
		got := fmt.Sprintf("%s %s %s:%d", req.GetUsername(), req.GetToken(), req.GetHost(), req.GetPort())
		if fail.Is(err, fail.Invalid) {
			got = bad
		} else if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s %q: %q, want %q", c.mechanism, c.response, got, c.want)
		}
	}
}
