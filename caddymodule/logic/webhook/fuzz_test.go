package webhook

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// Whatever a backend answers, it is done or refused as a whole, and the gateway
// stays within its bounds.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"", "[]", "null", `{"user":"7","groups":["a"],"session":{"k":[1,{"x":null}]}}`,
		`{"commands":[{"send":{"to":{"all":true},"text":"x"}}]}`,
		`{"commands":[{"send":{"to":{"groups":["a"],"except":{"users":["7"]}},"binary":"AP8="}},null]}`,
		`{"commands":[{"update_session":{"to":{"all":true},"session":{"k":null,"n":1e400}}}]}`,
		`{"commands":[{"set_session":{"to":{"all":true},"session":{"":-0}}},{"unbind":{"to":{"all":true}}}]}`,
		`{"user":"\ud800","groups":["\u0000"],"session":[]}`,
	} {
		f.Add([]byte(seed))
	}
	recorder := new(gatewaytest.Recorder)
	var parsed *answer
	recorder.Connect = func(c *gateway.Client, _ *http.Request) error {
		_ = parsed.admit(c)
		return nil
	}
	s := gatewaytest.ServeLogic(f, recorder)
	parsed = new(answer)
	s.Dial("/test")
	c := recorder.Client(f, 0)
	b := &backend{log: gatewaytest.Logger(f)}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := parseAnswer(body)
		if err != nil {
			return
		}
		for _, command := range a.Commands {
			if command.Close != nil {
				return // the client is needed
			}
		}
		_ = a.onlyCommands()
		_ = a.admit(c)
		b.do(s.Gateway, a.Commands, nil)
		session, err := json.Marshal(c.Session())
		if err != nil || len(session) > gateway.MaxSessionSize || len(c.User()) > gateway.MaxNameLength || len(c.Groups()) > gateway.MaxGroupsPerClient {
			t.Errorf("the client is %q in %d groups with %d bytes (%v)", c.User(), len(c.Groups()), len(session), err)
		}
		if err := c.Session().Replace(nil); err != nil {
			t.Error(err)
		}
		if err := c.Leave(c.Groups()...); err != nil {
			t.Error(err)
		}
	})
}

// People write their scripts after docs/webhook.md: each body in it must be one.
func TestBodiesInTheDocsAreUnderstood(t *testing.T) {
	page, err := os.ReadFile("../../../docs/webhook.md")
	if err != nil {
		t.Fatal(err)
	}
	requests, answers := 0, 0
	for i, part := range strings.Split(string(page), "\n```json\n") {
		block, _, _ := strings.Cut(part, "\n```\n")
		switch {
		case i == 0:
		case strings.Contains(block, `"events":`):
			requests++
			var body struct {
				Events []struct {
					event
					Client struct { // Session cannot be decoded
						client
						Session map[string]any `json:"session"`
					} `json:"client"`
				} `json:"events"`
			}
			dec := json.NewDecoder(strings.NewReader(block))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&body); err != nil || len(body.Events) == 0 || body.Events[0].Client.Session == nil {
				t.Errorf("%v in %s", err, block)
			}
		default:
			answers++
			a, err := parseAnswer([]byte(block))
			if err != nil {
				t.Errorf("%v in %s", err, block)
				continue
			}
			for j := range a.Commands {
				if a.Commands[j].Target() == nil || a.Commands[j].Target().Validate() != nil {
					t.Errorf("command %d is not one in %s", j, block)
				}
			}
		}
	}
	if requests != 3 || answers != 2 {
		t.Errorf("%d requests and %d answers, want 3 and 2", requests, answers)
	}
}
