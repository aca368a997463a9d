package gateway_test

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

func serveDeflate(t *testing.T, o gateway.EndpointOptions) *gatewaytest.Server {
	if o.Logic == nil {
		o.Logic = &gatewaytest.Recorder{Message: echo}
	}
	if o.Compression == (gateway.Compression{}) {
		o.Compression = gateway.Compression{Level: 1, MinSize: 1}
	}
	return serve(t, o)
}

// RFC 7692 section 7.1: what is answered must be honoured, and an offer that
// cannot be is declined, in favour of the next one.
func TestCompressionIsAnsweredOnlyAsItIsHonoured(t *testing.T) {
	const plain = deflateAnswer
	for _, tt := range []struct{ offer, want string }{
		{"permessage-deflate", plain},
		{"permessage-deflate; client_max_window_bits", plain},
		{"permessage-deflate; client_max_window_bits=10", plain},
		{`permessage-deflate; client_max_window_bits="10"`, plain},
		{"permessage-deflate; server_no_context_takeover; client_no_context_takeover", plain},
		{"permessage-deflate; server_max_window_bits=15", plain + "; server_max_window_bits=15"},
		{"permessage-deflate; server_max_window_bits=10", ""},
		{"permessage-deflate; server_max_window_bits=10, permessage-deflate", plain},
		{"permessage-deflate; server_max_window_bits", ""},
		{"permessage-deflate; client_max_window_bits=7", ""},
		{"permessage-deflate; client_max_window_bits=16", ""},
		{"permessage-deflate; client_max_window_bits=08", ""},
		{"permessage-deflate; client_max_window_bits=", ""},
		{"permessage-deflate; server_no_context_takeover=1", ""},
		{"permessage-deflate; client_no_context_takeover; client_no_context_takeover", ""},
		{"permessage-deflate; unheard_of", ""},
		{"x-webkit-deflate-frame", ""},
		{"x-webkit-deflate-frame, permessage-deflate; client_max_window_bits", plain},
		{"", ""},
		{";;,,=", ""},
	} {
		t.Run(tt.offer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if _, got := offer(t, serveDeflate(t, gateway.EndpointOptions{}), tt.offer); got != tt.want {
					t.Errorf("answered %q, want %q", got, tt.want)
				}
			})
		})
	}
}

func TestCompressionIsOffUnlessConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if _, got := offer(t, serve(t, gateway.EndpointOptions{}), "permessage-deflate"); got != "" {
			t.Errorf("answered %q, want nothing", got)
		}
	})
}

// deflater is a raw connection with permessage-deflate.
type deflater struct{ *rawPeer }

// offer does a handshake that offers extensions, and returns what is answered.
func offer(t *testing.T, s *gatewaytest.Server, extensions string) (d deflater, answer string) {
	t.Helper()
	d = deflater{connectRaw(t, s)}
	d.send([]byte(strings.Replace(upgradeRequest, "\r\n", "\r\nSec-WebSocket-Extensions: "+extensions+"\r\n", 1)))
	return d, d.wantUpgrade().Header.Get("Sec-WebSocket-Extensions")
}

func dialDeflate(t *testing.T, s *gatewaytest.Server) deflater {
	t.Helper()
	d, answer := offer(t, s, "permessage-deflate")
	if answer == "" {
		t.Fatal("permessage-deflate was declined")
	}
	return d
}

// frame writes a frame.
func (d deflater) frame(b0 byte, payload []byte) { d.send(frame(b0, string(payload))) }

// read reads one frame of the server's, which may be compressed.
func (d deflater) read() (b0 byte, payload []byte) {
	d.t.Helper()
	_ = d.SetReadDeadline(time.Now().Add(gatewaytest.Wait))
	head := make([]byte, 2)
	if _, err := io.ReadFull(d.r, head); err != nil {
		d.t.Fatal(err)
	}
	n := uint64(head[1])
	switch n {
	case 126:
		n = d.length(2)
	case 127:
		n = d.length(8)
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(d.r, payload); err != nil {
		d.t.Fatal(err)
	}
	return head[0], payload
}

func compress(t *testing.T, level int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})
}

func inflate(t *testing.T, payload []byte) string {
	t.Helper()
	data, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The examples of RFC 7692 section 7.2.3, and every level.
func TestCompressedMessagesAreUnderstood(t *testing.T) {
	long := strings.Repeat("all work and no play makes jack a dull boy ", 5000)
	cases := map[string]struct {
		payload []byte
		want    string
	}{
		"one block":        {[]byte{0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}, "Hello"},
		"no compression":   {[]byte{0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00}, "Hello"},
		"a final block":    {[]byte{0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00}, "Hello"},
		"two blocks":       {[]byte{0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00}, "Hello"},
		"an empty message": {[]byte{0x00}, ""},
	}
	for level := 0; level <= 9; level++ {
		cases[fmt.Sprint("level ", level)] = struct {
			payload []byte
			want    string
		}{compress(t, level, []byte(long)), long}
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := dialDeflate(t, serveDeflate(t, gateway.EndpointOptions{}))
				for range 2 { // nothing of the first is left for the second
					d.frame(0xC1, tt.payload)
					b0, payload := d.read()
					got := string(payload)
					if b0&0x40 != 0 {
						got = inflate(t, payload)
					}
					if got != tt.want {
						t.Errorf("echoed %.50q (%d bytes), want %.50q", got, len(got), tt.want)
					}
				}
			})
		})
	}
}

// RSV1 is on the first frame only (RFC 7692 section 6.1), and pieces may be cut
// anywhere.
func TestCompressedMessageMayBeFragmentedAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dialDeflate(t, serveDeflate(t, gateway.EndpointOptions{}))
		payload := compress(t, 6, []byte("cut me anywhere, anywhere, anywhere"))
		for cut := range len(payload) + 1 {
			d.frame(0x41, payload[:cut])
			d.frame(0x89, []byte("ping")) // a control frame in between is not compressed
			d.frame(0x80, payload[cut:])
			if b0, _ := d.read(); b0 != 0x8A {
				t.Fatalf("first byte %#x, want a pong's", b0)
			}
			if b0, echoed := d.read(); b0 == 0xC1 && inflate(t, echoed) != "cut me anywhere, anywhere, anywhere" {
				t.Errorf("cut at %d: echoed %q", cut, inflate(t, echoed))
			}
		}
	})
}

// Uncompressed messages stay allowed where compression was agreed on, both ways.
func TestOnlyMessagesOfTheMinimumSizeAreCompressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dialDeflate(t, serveDeflate(t, gateway.EndpointOptions{Compression: gateway.Compression{Level: 9, MinSize: 100}}))
		for size, compressed := range map[int]bool{99: false, 100: true} {
			d.frame(0x81, bytes.Repeat([]byte("x"), size))
			if b0, _ := d.read(); (b0 == 0xC1) != compressed {
				t.Errorf("a message of %d bytes begins with %#x", size, b0)
			}
		}
		noise := make([]byte, 1000)
		_, _ = rand.Read(noise)
		d.frame(0x82, noise)
		if b0, payload := d.read(); b0 != 0x82 || !bytes.Equal(payload, noise) {
			t.Errorf("what does not get smaller is sent with %#x", b0)
		}
	})
}

// A broadcast reaches those with and those without compression.
func TestBroadcastSuitsEveryKindOfConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveDeflate(t, gateway.EndpointOptions{})
		d, plain := dialDeflate(t, s), s.Dial("/test")
		text := strings.Repeat("to all of you ", 100)
		if n, err := s.Gateway.Send(gateway.All(), gateway.Text(text)); n != 2 || err != nil {
			t.Errorf("reached %d (%v), want 2", n, err)
		}
		plain.Want(text)
		if b0, payload := d.read(); b0 != 0xC1 || inflate(t, payload) != text {
			t.Errorf("the compressed one begins with %#x", b0)
		}
	})
}

func TestCorruptCompressedDataIs1007(t *testing.T) {
	good := compress(t, 6, []byte(strings.Repeat("good data ", 100)))
	for name, payload := range map[string][]byte{
		"reserved block type": {0xff, 0xff, 0xff},
		"bad stored length":   {0x00, 0x05, 0x00, 0x00, 0x00, 0x48},
		"noise":               bytes.Repeat([]byte{0xde, 0xad, 0xbe, 0xef}, 100),
		"distance too far":    {0x02, 0x02, 0x00, 0x00},
		"cut short":           good[:len(good)/2],
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serveDeflate(t, gateway.EndpointOptions{})
				neighbour, d := dialDeflate(t, s), dialDeflate(t, s)
				d.frame(0xC2, payload)
				b0, closed := d.read()
				if b0 != 0x88 || len(closed) < 2 || binary.BigEndian.Uint16(closed) != gateway.CloseInvalidPayload {
					t.Errorf("answered with %#x %q, want close 1007", b0, closed)
				}
				neighbour.frame(0xC1, good)
				if b0, payload := neighbour.read(); b0 != 0xC1 || !strings.HasPrefix(inflate(t, payload), "good data") {
					t.Error("a neighbour was hurt")
				}
			})
		})
	}
}

// 64 MiB of zeros are a few hundred KiB on the wire: inflating must stop at the limit.
func TestDeflateBombCostsNoMoreThanTheLimit(t *testing.T) {
	bomb := compress(t, flate.BestSpeed, make([]byte, 64<<20))
	synctest.Test(t, func(t *testing.T) {
		d := dialDeflate(t, serveDeflate(t, gateway.EndpointOptions{MaxMessageSize: 64 << 10}))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		go d.frame(0xC2, bomb)
		b0, closed := d.read()
		runtime.ReadMemStats(&after)
		if b0 != 0x88 || binary.BigEndian.Uint16(closed) != gateway.CloseMessageTooBig {
			t.Errorf("answered with %#x %q, want close 1009", b0, closed)
		}
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 2<<20 {
			t.Errorf("%d KiB were allocated for a limit of 64", allocated>>10)
		}
	})
}

func TestLimitHoldsAfterInflation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 10000
		s := serveDeflate(t, gateway.EndpointOptions{MaxMessageSize: limit})
		d := dialDeflate(t, s)
		d.frame(0xC2, compress(t, 9, make([]byte, limit)))
		if b0, payload := d.read(); b0 != 0xC2 || len(inflate(t, payload)) != limit {
			t.Errorf("a message of exactly the limit is answered with %#x", b0)
		}
		d.frame(0xC2, compress(t, 9, make([]byte, limit+1)))
		if b0, payload := d.read(); b0 != 0x88 || binary.BigEndian.Uint16(payload) != gateway.CloseMessageTooBig {
			t.Errorf("a byte more is answered with %#x %q, want close 1009", b0, payload)
		}
	})
}

func TestCompressionWorksWithAForeignClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveDeflate(t, gateway.EndpointOptions{})
		conn, err := s.Connect(gatewaytest.DefaultIP)
		if err != nil {
			t.Fatal(err)
		}
		dialer := websocket.Dialer{EnableCompression: true, NetDialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
		c, _, err := dialer.Dial("ws://gateway.test/test", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for size := 1; size < 1<<20; size *= 7 {
			text := strings.Repeat("x", size)
			if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
				t.Fatal(err)
			}
			if _, data, err := c.ReadMessage(); err != nil || string(data) != text {
				t.Fatalf("%d bytes came back as %d (%v)", size, len(data), err)
			}
		}
	})
}

// Whatever a client offers, the answer is one that can be honoured, or none.
func FuzzExtensions(f *testing.F) {
	for _, offer := range []string{
		"permessage-deflate; client_max_window_bits", "permessage-deflate; server_max_window_bits=15, foo; bar=\"a,b\"",
		";;,,=", "permessage-deflate; server_max_window_bits=\"15\"; client_no_context_takeover",
	} {
		f.Add(offer)
	}
	f.Fuzz(func(t *testing.T, offer string) {
		answer := gateway.AcceptDeflate(http.Header{"Sec-Websocket-Extensions": {offer}})
		switch answer {
		case "":
		case deflateAnswer, deflateAnswer + "; server_max_window_bits=15":
			if !strings.Contains(offer, "permessage-deflate") {
				t.Errorf("offer %q is answered with %q", offer, answer)
			}
		default:
			t.Errorf("offer %q is answered with %q", offer, answer)
		}
		if strings.Contains(answer, "server_max") != strings.Contains(answer, "=15") {
			t.Errorf("offer %q is answered with %q", offer, answer)
		}
	})
}

const deflateAnswer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
