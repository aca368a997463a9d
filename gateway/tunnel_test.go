package gateway_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// joined is a client that is connected to a backend, both below any library.
type joined struct {
	client, backend *rawPeer
	gateway         *gateway.Gateway
	log             *gatewaytest.Log
}

// join serves an endpoint that forwards to a backend of the test's, and connects
// a client. early follows the client's handshake in the same packet.
func joinTunnel(t *testing.T, proto string, o gateway.EndpointOptions, early ...[]byte) *joined {
	t.Helper()
	j := &joined{log: &gatewaytest.Log{}}
	o.Logger, o.Forwarding = j.log.Logger(), true
	e := gatewaytest.Endpoint(t, "test", o)
	backends := make(chan *rawPeer, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := e.Forward(w, r, gateway.Identity{RealIP: gatewaytest.DefaultIP}, func(w http.ResponseWriter, r *http.Request) (io.ReadWriteCloser, error) {
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Sec-WebSocket-Accept", gateway.AcceptKey(r.Header.Get("Sec-WebSocket-Key")))
			w.WriteHeader(http.StatusSwitchingProtocols)
			if _, _, err := http.NewResponseController(w).Hijack(); err != nil {
				return nil, err
			}
			ours, theirs := gatewaytest.Pipe()
			backends <- &rawPeer{theirs, t, bufio.NewReader(theirs)}
			return ours, nil
		})
		if err != nil {
			t.Errorf("forwarding: %v", err)
		}
	})
	g, err := gateway.New(gateway.Options{Logger: gatewaytest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shutdown(t, g) })
	if err := g.Serve(e); err != nil {
		t.Fatal(err)
	}
	j.gateway = g
	j.client = connectOver(t, gatewaytest.ServeHandler(t, handler), proto).shakeHands(early...)
	j.backend = <-backends
	t.Cleanup(func() { _ = j.backend.Close() })
	return j
}

// wantGone fails unless the log says so of the client.
func (j *joined) wantGone(t *testing.T, attrs map[string]any) {
	t.Helper()
	wantAttrs(t, j.log.Wait(t, "client gone"), attrs)
}

// bytes reads n bytes as they are.
func (p *rawPeer) bytes(n int) string {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(gatewaytest.Wait))
	b := make([]byte, n)
	if _, err := io.ReadFull(p.r, b); err != nil {
		p.t.Fatalf("reading %d bytes: %v", n, err)
	}
	return string(b)
}

// ended fails unless the connection ends in order.
func (p *rawPeer) ended() {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(gatewaytest.Wait))
	if rest, err := io.ReadAll(p.r); err != nil || len(rest) > 0 {
		p.t.Fatalf("the connection ends with %q, %v, want its end", rest, err)
	}
}

// server returns a frame as a server sends it.
func server(b0 byte, payload string) []byte {
	bits := 7
	if len(payload) > 125 {
		bits = 16
	}
	return frameOf(b0, bits, uint64(len(payload)), false, payload)
}

// overEach runs a test in a bubble for each protocol.
func overEach(t *testing.T, test func(t *testing.T, proto string)) {
	t.Helper()
	for _, proto := range protocols {
		t.Run(strings.ReplaceAll(proto, "/", ""), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, proto) })
		})
	}
}

func TestTunnelPassesBytesAsTheyAre(t *testing.T) {
	overEach(t, func(t *testing.T, proto string) {
		early := frame(fin|text, "sent with the handshake")
		j := joinTunnel(t, proto, gateway.EndpointOptions{}, early)
		if got := j.backend.bytes(len(early)); got != string(early) {
			t.Errorf("the backend got %q", got)
		}
		up := join(frame(fin|rsv1|text, strings.Repeat("up", 1000)), frame(text, "frag"), frame(fin|ping, "p"), frame(fin|cont, "ment"))
		down := join(server(fin|binry, strings.Repeat("down", 1000)), server(fin|pong, "p"))
		go func() {
			for i := range up { // byte by byte
				j.client.send(up[i : i+1])
			}
		}()
		go j.backend.send(down)
		if got := j.backend.bytes(len(up)); got != string(up) {
			t.Error("the backend got other bytes than the client sent")
		}
		if got := j.client.bytes(len(down)); got != string(down) {
			t.Error("the client got other bytes than the backend sent")
		}
		j.client.send(frame(fin|closes, closing(4001, "bye")))
		j.backend.bytes(len(frame(fin|closes, closing(4001, "bye"))))
		j.backend.send(server(fin|closes, closing(4001, "")))
		_ = j.backend.Close()
		j.client.want("close 4001")
		j.client.ended()
		_ = j.client.Close()
		j.wantGone(t, map[string]any{
			"code": int64(4001), "reason": "bye", "by_peer": true, "messages_in": int64(3), "messages_out": int64(1),
			"bytes_in": int64(len(early) + len(up) + len(frame(fin|closes, closing(4001, "bye")))), "bytes_out": int64(len(down) + 4),
		})
	})
}

func TestForwardedClientIsListedClosedAndNotSentTo(t *testing.T) {
	overEach(t, func(t *testing.T, proto string) {
		j := joinTunnel(t, proto, gateway.EndpointOptions{})
		list, err := j.gateway.Clients(t.Context(), gateway.Query{})
		if err != nil || len(list.Clients) != 1 || !list.Clients[0].Forwarded {
			t.Fatalf("listed %+v (%v), want one that is forwarded", list, err)
		}
		if n, err := j.gateway.Send(gateway.All(), gateway.Text("x")); n != 0 || err != nil {
			t.Errorf("a message reached %d (%v), want 0", n, err)
		}
		c := j.gateway.Client(list.Clients[0].ID)
		if err := c.Send(gateway.Text("x")); !errors.Is(err, gateway.ErrForwarded) {
			t.Errorf("sending: %v, want ErrForwarded", err)
		}
		if n, err := j.gateway.Close(gateway.All(), 4002, "kicked"); n != 1 || err != nil {
			t.Errorf("closing reached %d (%v), want 1", n, err)
		}
		wantCount(t, j.gateway, gateway.All(), 0)
		j.client.want("close 4002 kicked")
		if head := j.backend.bytes(2); head != "\x88\x88" { // masked, as a client's must be
			t.Errorf("the backend got a frame that begins with %x", head)
		}
		j.client.send(frame(fin|closes, closing(4002, "")))
		_ = j.backend.Close()
		j.client.ended()
		_ = j.client.Close()
		j.wantGone(t, map[string]any{"code": int64(4002), "reason": "kicked", "by_peer": false})
	})
}

// A close frame in the middle of another frame would be taken for its payload.
func TestCloseFrameWaitsForTheEndOfAFrame(t *testing.T) {
	overEach(t, func(t *testing.T, proto string) {
		j := joinTunnel(t, proto, gateway.EndpointOptions{})
		up, down := frame(fin|text, "half and half"), server(fin|text, "half and half")
		j.client.send(up[:7])
		j.backend.send(down[:7])
		j.backend.bytes(7)
		first := j.client.bytes(7)
		if n, err := j.gateway.Close(gateway.All(), 4000, ""); n != 1 || err != nil {
			t.Fatalf("closing reached %d (%v)", n, err)
		}
		synctest.Wait()
		j.client.send(join(up[7:], frame(fin|text, "too late")))
		j.backend.send(join(down[7:], server(fin|text, "too late")))
		if got := first + j.client.bytes(len(down)-7); got != string(down) {
			t.Errorf("the client got %q, want the whole frame", got)
		}
		j.client.want("close 4000")
		j.backend.bytes(len(up) - 7)
		if head := j.backend.bytes(2); head != "\x88\x82" {
			t.Errorf("the backend got %x behind the frame, want a close", head)
		}
	})
}

// If the bytes allow, a client learns that its backend is gone, and comes back.
func TestDeathOfTheBackendIs1001BetweenFramesAnd1006Inside(t *testing.T) {
	for name, tt := range map[string]struct {
		sent string
		want string
		code int64
	}{
		"between frames": {string(server(fin|text, "x")), "close 1001", 1001},
		"inside a frame": {string(server(fin|text, "xyz")[:3]), "end", 1006},
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, func(t *testing.T, proto string) {
				j := joinTunnel(t, proto, gateway.EndpointOptions{})
				j.backend.send([]byte(tt.sent))
				j.client.bytes(len(tt.sent))
				_ = j.backend.Close()
				j.client.want(tt.want)
				_ = j.client.Close()
				j.wantGone(t, map[string]any{"code": tt.code, "reason": "backend closed the connection", "by_peer": false})
			})
		})
	}
}

func TestDeathOfTheClientEndsTheBackendsConnection(t *testing.T) {
	overEach(t, func(t *testing.T, proto string) {
		j := joinTunnel(t, proto, gateway.EndpointOptions{})
		_ = j.client.Close()
		j.backend.ended()
		_ = j.backend.Close()
		j.wantGone(t, map[string]any{"code": int64(1006), "by_peer": true})
	})
}

// What one side says after the other has stopped talking must arrive.
func TestHalfCloseLeavesTheOtherDirectionOpen(t *testing.T) {
	overEach(t, func(t *testing.T, proto string) {
		j := joinTunnel(t, proto, gateway.EndpointOptions{})
		goodbye := frame(fin|closes, closing(1000, ""))
		j.client.send(goodbye)
		_ = j.client.CloseWrite()
		j.backend.bytes(len(goodbye))
		j.backend.ended()
		time.Sleep(time.Second)
		j.backend.send(join(server(fin|text, "last words"), server(fin|closes, closing(1000, ""))))
		j.client.want("text last words", "close 1000")
		_ = j.backend.Close()
		j.client.ended()
		j.wantGone(t, map[string]any{"code": int64(1000), "by_peer": true})
	})
}

func TestTunnelTimeOuts(t *testing.T) {
	for name, tt := range map[string]struct {
		o    gateway.EndpointOptions
		do   func(j *joined)
		wait time.Duration
		code int64
	}{
		"idle": {gateway.EndpointOptions{IdleTimeout: 5 * time.Minute}, func(*joined) {}, 5*time.Minute + gateway.DefaultWriteTimeout, 1001},
		"the close is not answered": {gateway.EndpointOptions{}, func(j *joined) {
			_, _ = j.gateway.Close(gateway.All(), 4000, "")
		}, gateway.DefaultWriteTimeout, 4000},
		"the backend does not react to the client's end": {gateway.EndpointOptions{}, func(j *joined) {
			_ = j.client.Close()
		}, gateway.DefaultWriteTimeout, 1006},
		"the client takes in nothing": {gateway.EndpointOptions{}, func(j *joined) {
			go j.backend.send(bytes.Repeat(server(fin|binry, strings.Repeat("x", 60000)), 10))
		}, time.Minute, 1006},
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, func(t *testing.T, proto string) {
				start := time.Now()
				j := joinTunnel(t, proto, tt.o)
				tt.do(j)
				for len(j.log.Find("client gone")) == 0 {
					time.Sleep(time.Second)
					if time.Since(start) > 10*time.Minute {
						t.Fatal("the client is still there after ten minutes")
					}
				}
				if took := time.Since(start); took < tt.wait || took > tt.wait+3*time.Second {
					t.Errorf("gone after %s, want %s", took, tt.wait)
				}
				j.wantGone(t, map[string]any{"code": tt.code})
			})
		})
	}
}

// A backend that refuses, and one that cannot be reached, cost nothing.
func TestRefusalOfTheBackendReachesTheClient(t *testing.T) {
	overEach(t, func(t *testing.T, proto string) {
		e := gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{MaxClients: 1, Forwarding: true})
		unreachable := errors.New("no route")
		s := gatewaytest.ServeHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := e.Forward(w, r, gateway.Identity{}, func(w http.ResponseWriter, r *http.Request) (io.ReadWriteCloser, error) {
				switch r.URL.RawQuery {
				case "panic":
					panic(http.ErrAbortHandler)
				case "error":
					return nil, unreachable
				case "page":
					_, err := io.WriteString(w, "no WebSocket here")
					return nil, err
				case "liar":
					w.Header().Set("Upgrade", "websocket")
					w.Header().Set("Connection", "Upgrade")
					w.Header().Set("Sec-WebSocket-Accept", gateway.AcceptKey("another key"))
					w.WriteHeader(http.StatusSwitchingProtocols)
					_, _, err := http.NewResponseController(w).Hijack()
					return nil, err
				}
				http.Error(w, "not you", http.StatusTeapot)
				return nil, nil //nolint:nilnil // it has answered
			})
			if errors.Is(err, unreachable) {
				http.Error(w, err.Error(), http.StatusBadGateway)
			}
		}))
		g, err := gateway.New(gateway.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer shutdown(t, g)
		if err := g.Serve(e); err != nil {
			t.Fatal(err)
		}
		for range 2 { // max_clients is 1: nothing is left of those that failed
			ask := func(query string) *rawPeer {
				p := connectOver(t, s, proto)
				p.send([]byte(strings.Replace(upgradeRequest, "/test", "/test?"+query, 1)))
				return p
			}
			want := map[string]int{"": http.StatusTeapot, "error": http.StatusBadGateway}
			if proto != "HTTP/1.1" { // where the client finds out by itself: here 200 would tell it that all is well
				want["page"], want["liar"] = http.StatusBadGateway, http.StatusBadGateway
			}
			for query, status := range want {
				if resp := ask(query).response(); resp.StatusCode != status {
					t.Errorf("?%s is answered with %s, want %d", query, resp.Status, status)
				}
			}
			ask("panic").ended()
		}
		wantCount(t, g, gateway.All(), 0)
	})
}
