package miniprogram

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

const (
	appOne, secretOne = "wx0000000000000001", "the-first-secret"
	appTwo, secretTwo = "wx0000000000000002", "the-second-secret"
)

// standIn answers instead of WeChat: the code "tom:1" is user tom's, of the first
// app, and good for one time.
type standIn struct {
	// instead, if set, is what answers.
	instead func(r *http.Request) (*http.Response, error)

	mu   sync.Mutex
	used map[string]bool // guarded by mu
}

func (w *standIn) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.instead != nil {
		return w.instead(r)
	}
	query := r.URL.Query()
	code := query.Get("js_code")
	w.mu.Lock()
	defer w.mu.Unlock()
	name, _, ok := strings.Cut(code, ":")
	switch {
	case query.Get("grant_type") != "authorization_code" || r.Method != http.MethodGet || r.URL.Host != "api.weixin.qq.com":
		return respond(`{"errcode":40002,"errmsg":"invalid grant_type"}`)
	case query.Get("appid") == appOne && query.Get("secret") == secretOne, query.Get("appid") == appTwo && query.Get("secret") == secretTwo:
	default:
		return respond(`{"errcode":40125,"errmsg":"invalid appsecret"}`)
	}
	switch {
	case !ok:
		return respond(`{"errcode":40029,"errmsg":"invalid code"}`)
	case w.used[code]:
		return respond(`{"errcode":40163,"errmsg":"code been used"}`)
	}
	if w.used == nil {
		w.used = make(map[string]bool)
	}
	w.used[code] = true
	return respond(fmt.Sprintf(`{"openid":"openid-%s","session_key":"never shown"}`, name))
}

func respond(body string) (*http.Response, error) {
	return &http.Response{Status: "200 OK", StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// logic returns provisioned logic that asks the stand-in.
func logic(t *testing.T, w *standIn, apps ...App) *MiniProgram {
	t.Helper()
	if len(apps) == 0 {
		apps = []App{{appOne, secretOne}}
	}
	p := &MiniProgram{Apps: apps}
	if err := p.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	p.wechat.client.Transport = w
	return p
}

func serve(t *testing.T, w *standIn) *gatewaytest.Server {
	t.Helper()
	return gatewaytest.ServeLogic(t, logic(t, w))
}

// clients returns how many connections a user has.
func clients(t *testing.T, s *gatewaytest.Server, user string) int {
	t.Helper()
	reach, err := s.Gateway.Count(t.Context(), gateway.Users(user))
	if err != nil {
		t.Fatal(err)
	}
	return reach.Clients
}

func TestTheUserIsWhoWeChatSaysHeIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, new(standIn))
		tom := s.Dial("/test?code=tom:1", "Referer: https://servicewechat.com/"+appOne+"/7/page-frame.html")
		tom.Want(`{"type":"welcome","resumed":false,"notes":[]}`)
		if n := clients(t, s, "openid-tom"); n != 1 {
			t.Errorf("tom has %d connections, want 1", n)
		}
	})
}

// The option subprotocols: wx.connectSocket fails unless one of its protocols is
// answered. No Origin is sent, and none is needed.
func TestOneOfTheOfferedProtocolsIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{
			Logic: logic(t, new(standIn)), Subprotocols: []string{"mini.v2", "mini.v1"},
		}))
		c := s.Dial("/test?code=tom:1", "Sec-WebSocket-Protocol: mini.v0, mini.v1")
		if got := c.Conn.Subprotocol(); got != "mini.v1" {
			t.Errorf("protocol %q, want mini.v1", got)
		}
	})
}

func TestCodesThatProveNothingAreRefusedWith401(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(standIn)
		s := serve(t, w)
		s.Dial("/test?code=used:1")
		for _, path := range []string{"/test", "/test?code=", "/test?code=invented", "/test?code=used:1", "/test?code=tom:" + strings.Repeat("x", maxCode)} {
			resp := s.Refused(http.StatusUnauthorized, path)
			if resp.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%.40s: 401 without WWW-Authenticate", path)
			}
		}
		w.instead = func(*http.Request) (*http.Response, error) {
			return respond(`{"errcode":40226,"errmsg":"code blocked"}`)
		}
		s.Refused(http.StatusUnauthorized, "/test?code=blocked:1")
	})
}

// A fault of WeChat's or of the configuration's is no fault of the user's: the page
// shall come back. And whatever goes wrong, the secret stays where it is.
func TestNobodyIsLetInWhileWeChatCannotBeAsked(t *testing.T) {
	for name, instead := range map[string]func(*http.Request) (*http.Response, error){
		"network": func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") },
		"status": func(*http.Request) (*http.Response, error) {
			return &http.Response{Status: "502 Bad Gateway", StatusCode: http.StatusBadGateway, Body: http.NoBody}, nil
		},
		"redirect": func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "elsewhere.example" {
				return nil, errors.New("the redirect was followed")
			}
			return &http.Response{Status: "302 Found", StatusCode: http.StatusFound, Header: http.Header{"Location": {"https://elsewhere.example/?" + r.URL.RawQuery}}, Body: http.NoBody}, nil
		},
		"no JSON": func(*http.Request) (*http.Response, error) { return respond("<html>") },
		"endless": func(*http.Request) (*http.Response, error) {
			return respond(`{"errmsg":"` + strings.Repeat("x", 1<<20))
		},
		"no openid":    func(*http.Request) (*http.Response, error) { return respond(`{"errcode":0}`) },
		"busy":         func(*http.Request) (*http.Response, error) { return respond(`{"errcode":-1,"errmsg":"system error"}`) },
		"rate":         func(*http.Request) (*http.Response, error) { return respond(`{"errcode":45011}`) },
		"wrong secret": func(*http.Request) (*http.Response, error) { return respond(`{"errcode":40125}`) },
		"silence": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := logic(t, &standIn{instead: instead})
				s := gatewaytest.ServeLogic(t, p)
				start := time.Now()
				resp := s.Refused(http.StatusServiceUnavailable, "/test?code=tom:1")
				if resp.Header.Get("Retry-After") == "" {
					t.Error("503 without Retry-After")
				}
				if took := time.Since(start); took > DefaultTimeout {
					t.Errorf("refused after %s, want %s at most", took, DefaultTimeout)
				}
				_, err := p.wechat.login(t.Context(), appOne, "tom:1")
				if err == nil || strings.Contains(err.Error(), secretOne) || strings.Contains(err.Error(), "followed") {
					t.Errorf("error %v", err)
				}
			})
		})
	}
}

// The Referer is a hint which app's secret to try. It opens no door: the code does.
func TestTheRefererChoosesTheApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		referer := func(app string) string {
			return "Referer: https://servicewechat.com/" + app + "/devtools/page-frame.html"
		}
		one := serve(t, new(standIn))
		one.Dial("/test?code=tom:1", referer(appOne))
		one.Dial("/test?code=tom:2")                                                       // one app: no hint needed
		one.Dial("/test?code=tom:3", "Referer: https://servicewechat.com.example/"+appTwo) // no hint
		one.Refused(http.StatusForbidden, "/test?code=tom:4", referer(appTwo))
		one.Refused(http.StatusUnauthorized, "/test?code=forged", referer(appOne))

		two := gatewaytest.ServeLogic(t, logic(t, new(standIn), App{appOne, secretOne}, App{appTwo, secretTwo}))
		two.Dial("/test?code=eve:1", referer(appTwo))
		two.Refused(http.StatusForbidden, "/test?code=eve:2")
		two.Refused(http.StatusForbidden, "/test?code=eve:3", referer("wx0000000000000003"))
	})
}

// WeChat cuts the socket some seconds after the user has turned to something else.
func TestWhoComesBackFromTheBackgroundGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, new(standIn))
		tom := s.Dial("/test?code=tom:1")
		tom.Want(`{"type":"welcome","resumed":false,"notes":[]}`)
		tom.Send(`{"type":"note","text":"buy milk"}`)
		tom.Want(`{"type":"noted","notes":["buy milk"]}`)
		tom.Cut()
		time.Sleep(5 * time.Second)

		s.Dial("/test?code=eve:1").Want(`{"type":"welcome","resumed":false,"notes":[]}`)
		tom = s.Dial("/test?code=tom:2")
		tom.Want(`{"type":"welcome","resumed":true,"notes":["buy milk"]}`)
		tom.Send(`{"type":"note","text":"call mum"}`)
		tom.Want(`{"type":"noted","notes":["buy milk","call mum"]}`)
	})
}

func TestNotesAreForgottenSomeTimeAfterTheUserLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := logic(t, new(standIn))
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: p, PingInterval: -1}))
		tom := s.Dial("/test?code=tom:1")
		tom.Receive()
		tom.Send(`{"type":"note","text":"buy milk"}`)
		tom.Receive()
		time.Sleep(2 * DefaultKeep) // connected: this does not count
		tom.Cut()
		time.Sleep(DefaultKeep - time.Second)
		tom = s.Dial("/test?code=tom:2")
		tom.Want(`{"type":"welcome","resumed":true,"notes":["buy milk"]}`)
		tom.Cut()
		time.Sleep(DefaultKeep + time.Second)
		tom = s.Dial("/test?code=tom:3")
		tom.Want(`{"type":"welcome","resumed":false,"notes":[]}`)
		tom.Cut()
		time.Sleep(DefaultKeep + 2*time.Minute)
		p.users.mu.Lock()
		defer p.users.mu.Unlock()
		if n := len(p.users.byID); n != 0 {
			t.Errorf("%d users are remembered, want none", n)
		}
	})
}

// A phone that lost its network leaves a connection that looks alive for a while.
func TestANewerConnectionReplacesTheOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, new(standIn))
		old := s.Dial("/test?code=tom:1")
		old.Receive()
		old.Send(`{"type":"note","text":"buy milk"}`)
		old.Receive()
		fresh := s.Dial("/test?code=tom:2")
		fresh.Want(`{"type":"welcome","resumed":true,"notes":["buy milk"]}`)
		old.WantClose(CloseReplaced)
		old.Cut()
		synctest.Wait()
		if n := clients(t, s, "openid-tom"); n != 1 {
			t.Errorf("tom has %d connections, want 1", n)
		}
		fresh.Send(`{"type":"ping"}`)
		fresh.Want(`{"type":"pong"}`)
	})
}

// Otherwise each could close the other, and 4001 means not to come back.
func TestOfConnectionsOpenedAtOnceOneStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, new(standIn))
		for i := range 16 {
			go s.Dial(fmt.Sprintf("/test?code=tom:%d", i))
		}
		synctest.Wait()
		if n := clients(t, s, "openid-tom"); n != 1 {
			t.Errorf("tom has %d connections, want 1", n)
		}
	})
}

func TestAReloadForgetsNoNotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(standIn)
		s := serve(t, w)
		tom := s.Dial("/test?code=tom:1")
		tom.Receive()
		tom.Send(`{"type":"note","text":"buy milk"}`)
		tom.Receive()
		if err := s.Gateway.Serve(gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic(t, w)})); err != nil {
			t.Fatal(err)
		}
		tom.Send(`{"type":"note","text":"call mum"}`)
		tom.Want(`{"type":"noted","notes":["buy milk","call mum"]}`)
		tom.Cut()
		s.Dial("/test?code=tom:2").Want(`{"type":"welcome","resumed":true,"notes":["buy milk","call mum"]}`)
	})
}

func TestMessagesThatMeanNothingAreAnsweredAndNotesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, new(standIn))
		tom := s.Dial("/test?code=tom:1")
		tom.Receive()
		for _, message := range []string{"", "tom", "null", "[]", `{"type":7}`, `{"type":"nonsense"}`, `{"type":"note"}`, `{"type":"note","text":"` + strings.Repeat("x", maxNote+1) + `"}`} {
			tom.Send(message)
			tom.WantJSON(`{"type":"error"}`)
		}
		for i := range maxNotes + 1 {
			tom.Send(fmt.Sprintf(`{"type":"note","text":"%d"}`, i))
			notes, _ := tom.WantJSON(`{"type":"noted"}`)["notes"].([]any)
			if len(notes) != min(i+1, maxNotes) || notes[len(notes)-1] != fmt.Sprint(i) {
				t.Fatalf("after %d notes: %v", i+1, notes)
			}
		}
	})
}

// An empty secret would let WeChat refuse everybody, at the worst moment.
func TestAConfigurationThatCannotWorkIsRefused(t *testing.T) {
	t.Setenv("WX_TEST_SECRET", secretOne)
	t.Setenv("WX_TEST_EMPTY", "")
	for _, tt := range []struct{ config, want string }{
		{"miniprogram {\n app wx1 {env.WX_TEST_SECRET}\n}", ""},
		{"miniprogram {\n app wx1 {env.WX_TEST_SECRET}\n app wx2 b\n endpoint http://127.0.0.1:1/x\n timeout 1s\n keep 1h\n}", ""},
		{"miniprogram {\n app wx1 {env.WX_TEST_EMPTY}\n}", "the secret of appid \"wx1\""},
		{"miniprogram {\n app wx1 {env.WX_TEST_NOT_THERE}\n}", "the secret of appid \"wx1\""},
		{"miniprogram {\n app wx1 {no.such}\n}", "the secret of appid \"wx1\""},
		{"miniprogram {\n app wx1 \"\"\n}", "the secret of appid \"wx1\""},
		{"miniprogram {\n app {env.WX_TEST_EMPTY} a\n}", "appid"},
		{"miniprogram {\n app wx1 a\n app wx1 b\n}", "given twice"},
		{"miniprogram", "no mini program is listed"},
		{"miniprogram {\n app wx1\n}", "app <appid> <secret>"},
		{"miniprogram wx1", "takes no arguments"},
		{"miniprogram {\n app wx1 a\n keep 1m\n keep 1m\n}", "keep is given twice"},
		{"miniprogram {\n app wx1 a\n keep 0s\n}", "not positive"},
		{"miniprogram {\n app wx1 a\n timeout\n}", "takes one value"},
		{"miniprogram {\n app wx1 a\n tiemout 1s\n}", "unknown option \"tiemout\""},
		{"miniprogram {\n app wx1 a\n endpoint http://example.com/\n}", "allowed are https URLs"},
		{"miniprogram {\n app wx1 a\n endpoint {env.WX_TEST_EMPTY}\n}", "endpoint"},
	} {
		p := new(MiniProgram)
		err := p.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tt.config))
		if err == nil {
			err = p.Provision(caddy.Context{})
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s\n\tgives %v, want %q", tt.config, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), secretOne) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}
