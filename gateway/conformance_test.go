package gateway_test

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	_ "github.com/caddy-websocket/caddy-websocket/gateway/extendedconnect" // else nothing comes over HTTP/2
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/internal/streamtest"
)

// These tests hold the gateway to RFC 6455 by bytes: frames are made and read
// here, by nothing that the gateway itself is made of.

// The first byte of a frame (RFC 6455 section 5.2).
const (
	fin  = 0x80
	rsv1 = 0x40
	rsv2 = 0x20
	rsv3 = 0x10

	cont   = 0x0
	text   = 0x1
	binry  = 0x2
	closes = 0x8
	ping   = 0x9
	pong   = 0xA
)

// frame returns a masked frame whose length takes the fewest bytes.
func frame(b0 byte, payload string) []byte {
	switch n := len(payload); {
	case n <= 125:
		return frameOf(b0, 7, uint64(n), true, payload)
	case n <= 0xFFFF:
		return frameOf(b0, 16, uint64(n), true, payload)
	default:
		return frameOf(b0, 64, uint64(n), true, payload)
	}
}

// frameOf returns a frame that says of itself what it is told to: the length
// claimed, in 7, 16 or 64 bits, and whether there is a mask.
func frameOf(b0 byte, bits int, claim uint64, masked bool, payload string) []byte {
	f := []byte{b0}
	switch bits {
	case 7:
		f = append(f, byte(claim))
	case 16:
		f = binary.BigEndian.AppendUint16(append(f, 126), uint16(claim))
	case 64:
		f = binary.BigEndian.AppendUint64(append(f, 127), claim)
	}
	if !masked {
		return append(f, payload...)
	}
	f[1] |= 0x80
	key := [4]byte{0x37, 0xFA, 0x21, 0x3D}
	f = append(f, key[:]...)
	for i := range len(payload) {
		f = append(f, payload[i]^key[i%4])
	}
	return f
}

// closing returns the payload of a close frame.
func closing(code int, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

// rawPeer is a client below any library.
type rawPeer struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

// CloseWrite ends the direction to the server.
func (p *rawPeer) CloseWrite() error { return p.Conn.(interface{ CloseWrite() error }).CloseWrite() }

const upgradeRequest = "GET /test HTTP/1.1\r\n" +
	"Host: gateway.test\r\n" +
	"Upgrade: websocket\r\n" +
	"Connection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + // of RFC 6455 section 1.3
	"\r\n"

// connectRaw opens a connection and writes nothing yet.
func connectRaw(t testing.TB, s *gatewaytest.Server) *rawPeer {
	t.Helper()
	return connectOver(t, s, "HTTP/1.1")
}

// protocols are what the in-memory server speaks.
var protocols = []string{"HTTP/1.1", "HTTP/2.0"}

// connectOver is connectRaw over HTTP/1.1 or HTTP/2.0, where the handshake is turned
// into an extended CONNECT on a connection of its own.
func connectOver(t testing.TB, s *gatewaytest.Server, proto string) *rawPeer {
	t.Helper()
	conn, err := s.Connect(gatewaytest.DefaultIP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if proto == "HTTP/2.0" {
		streams, err := streamtest.HTTP2(conn)
		if err != nil {
			t.Fatal(err)
		}
		conn = streams.Open()
		t.Cleanup(func() { _ = conn.Close() })
	}
	return &rawPeer{conn, t, bufio.NewReader(conn)}
}

// dialRaw does a handshake at the endpoint "test"; early follows it in the same
// packet.
func dialRaw(t testing.TB, s *gatewaytest.Server, early ...[]byte) *rawPeer {
	t.Helper()
	return connectRaw(t, s).shakeHands(early...)
}

func (p *rawPeer) shakeHands(early ...[]byte) *rawPeer {
	p.t.Helper()
	p.send(append([]byte(upgradeRequest), join(early...)...))
	p.wantUpgrade()
	return p
}

// response reads the answer to a handshake.
func (p *rawPeer) response() *http.Response {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(gatewaytest.Wait))
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		p.t.Fatalf("reading the answer to the handshake: %v", err)
	}
	return resp
}

func (p *rawPeer) wantUpgrade() *http.Response {
	p.t.Helper()
	resp := p.response()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		p.t.Fatalf("handshake answered with %s, want 101", resp.Status)
	}
	if got := resp.Header.Values("Sec-WebSocket-Accept"); !slices.Equal(got, []string{"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}) {
		p.t.Fatalf("Sec-WebSocket-Accept is %q", got)
	}
	return resp
}

// send writes, and minds no error: a peer that breaks the protocol may find
// that the server has hung up.
func (p *rawPeer) send(data []byte) { _, _ = p.Write(data) }

// next reads a frame and describes it: "text tom", "close 1000 bye", "close" for
// an empty one, or "end" if the connection ended in order. Whatever a server must
// not send fails the test.
func (p *rawPeer) next() string {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(gatewaytest.Wait))
	head := make([]byte, 2)
	if _, err := io.ReadFull(p.r, head); err != nil {
		if err == io.EOF {
			return "end"
		}
		return "error " + err.Error()
	}
	if head[0]&(fin|rsv1|rsv2|rsv3) != fin || head[1]&0x80 != 0 {
		p.t.Fatalf("the server sent a frame that begins with %x", head)
	}
	length := uint64(head[1])
	smallest := uint64(0)
	switch length {
	case 126:
		length, smallest = p.length(2), 126
	case 127:
		length, smallest = p.length(8), 0x10000
	}
	op := head[0] & 0xF
	if length < smallest || op >= closes && length > 125 {
		p.t.Fatalf("the server sent %d bytes of payload in a frame that begins with %x", length, head)
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(p.r, payload); err != nil {
		p.t.Fatalf("reading %d bytes of payload: %v", length, err)
	}
	return p.describe(op, payload)
}

func (p *rawPeer) length(size int) uint64 {
	b := make([]byte, 8)
	if _, err := io.ReadFull(p.r, b[8-size:]); err != nil {
		p.t.Fatalf("reading a payload length: %v", err)
	}
	return binary.BigEndian.Uint64(b)
}

func (p *rawPeer) describe(op byte, payload []byte) string {
	p.t.Helper()
	switch op {
	case text:
		return "text " + short(string(payload))
	case binry:
		return "binary " + short(string(payload))
	case ping:
		return "ping " + short(string(payload))
	case pong:
		return "pong " + short(string(payload))
	case closes:
		if len(payload) == 0 {
			return "close"
		}
		if len(payload) < 2 || !utf8.Valid(payload[2:]) {
			p.t.Fatalf("the server sent a close frame with the payload %q", payload)
		}
		return strings.TrimSpace(fmt.Sprintf("close %d %s", binary.BigEndian.Uint16(payload), payload[2:]))
	}
	p.t.Fatalf("the server sent a frame with the opcode %d", op)
	return ""
}

// short is s, or what tells it from others if it is long.
func short(s string) string {
	if len(s) <= 200 {
		return s
	}
	return fmt.Sprintf("%d bytes %x", len(s), sha256.Sum256([]byte(s)))
}

// want fails the test unless the next frames are these. One that is a close code
// alone, like "close 1002", stands for any reason beside it.
func (p *rawPeer) want(frames ...string) {
	p.t.Helper()
	for _, want := range frames {
		got := p.next()
		anyReason := len(want) == len("close 1000") && strings.HasPrefix(got, want+" ")
		if got != want && !anyReason {
			p.t.Fatalf("received %.300q, want %.300q", got, want)
		}
	}
}

// wantNothing fails the test if the server has sent something.
func (p *rawPeer) wantNothing() {
	p.t.Helper()
	synctest.Wait()
	_ = p.SetReadDeadline(time.Now().Add(time.Millisecond))
	if b, err := p.r.Peek(1); err == nil {
		p.t.Fatalf("received %.100q, want nothing: %x", p.next(), b)
	} else if errors.Is(err, io.EOF) {
		p.t.Fatal("the server closed the connection")
	}
}

// deliveries are ways in which the same bytes can arrive, which must make no
// difference (RFC 6455 section 5.4: frames say nothing about packets).
var deliveries = []struct {
	name string
	send func(p *rawPeer, data []byte)
}{
	{"in one write", func(p *rawPeer, data []byte) { p.shakeHands().send(data) }},
	{"behind the handshake in one packet", func(p *rawPeer, data []byte) { p.shakeHands(data) }},
	{"byte by byte", func(p *rawPeer, data []byte) {
		p.shakeHands()
		for i := range data {
			p.send(data[i : i+1])
			synctest.Wait()
		}
	}},
	{"the first byte behind the handshake", func(p *rawPeer, data []byte) {
		p.shakeHands(data[:1])
		synctest.Wait()
		p.send(data[1:])
	}},
}

// conforms sends data to an endpoint that echoes, in all ways of delivery over each
// protocol, and fails the test unless these frames come back.
func conforms(t *testing.T, data []byte, want ...string) {
	t.Helper()
	conformsWith(t, gateway.EndpointOptions{}, data, want...)
}

func conformsWith(t *testing.T, o gateway.EndpointOptions, data []byte, want ...string) {
	t.Helper()
	for _, proto := range protocols {
		t.Run(strings.ReplaceAll(proto, "/", ""), func(t *testing.T) { conformsOver(t, proto, o, data, want...) })
	}
}

func conformsOver(t *testing.T, proto string, o gateway.EndpointOptions, data []byte, want ...string) {
	t.Helper()
	for _, how := range deliveries {
		t.Run(how.name, func(t *testing.T) {
			if most := map[string]int{"HTTP/1.1": 5000, "HTTP/2.0": 300}[proto]; how.name == "byte by byte" && len(data) > most {
				t.Skip("too many bytes")
			}
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{Message: echo}
				o := o
				o.Logic = logic
				s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", o))
				p := connectOver(t, s, proto)
				how.send(p, data)
				p.want(want...)
				if strings.HasPrefix(want[len(want)-1], "close") {
					p.want("end") // the server closes first (RFC 6455 section 7.1.1)
				} else {
					p.wantNothing()
				}
				_ = p.Close()
				synctest.Wait()
				ends := 0
				for _, event := range logic.Events() {
					if strings.HasPrefix(event, "close ") {
						ends++
					}
				}
				if ends != 1 {
					t.Errorf("events %.300q: want one close", logic.Events())
				}
			})
		})
	}
}

// wireCase is bytes from the client and the frames that answer them.
type wireCase struct {
	name string
	send []byte
	want []string
}

func runWireCases(t *testing.T, cases []wireCase) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) { conforms(t, tt.send, tt.want...) })
	}
}

func TestMessagesOfEverySizeArrive(t *testing.T) {
	o := gateway.EndpointOptions{MaxMessageSize: 16 << 20, SendBuffer: 17 << 20}
	for _, size := range []int{0, 1, 125, 126, 127, 128, 1023, 1024, 1025, 65535, 65536, 65537, 1 << 20, 16 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			payload := strings.Repeat("0123456789abcde\n", size/16+1)[:size]
			conformsWith(t, o, join(frame(fin|text, payload), frame(fin|binry, "next")), "text "+short(payload), "binary next")
			if size > 1<<20 {
				return
			}
			conformsWith(t, o, frame(fin|binry, payload), "binary "+short(payload))
			half := size / 2
			conformsWith(t, o, join(frame(text, payload[:half]), frame(fin|cont, payload[half:])), "text "+short(payload))
		})
	}
}

// A second request behind the first is no frame, whoever stands between would
// take it for one of its own.
func TestHTTPBehindTheHandshakeIs1002(t *testing.T) {
	runWireCases(t, []wireCase{
		{"handshake", []byte(upgradeRequest), []string{"close 1002"}},
		{"GET", []byte("GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n"), []string{"close 1002"}},
		{"POST", []byte("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 0\r\n\r\n"), []string{"close 1002"}},
		{"TLS", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), []string{"close 1002"}},
		{"empty lines", []byte("\r\n\r\n"), []string{"close 1002"}},
		{"zeros", make([]byte, 100), []string{"close 1002"}},
	})
}

func TestFragmentsAreJoined(t *testing.T) {
	many := frame(binry, "")
	for range 1000 {
		many = append(many, frame(cont, "x")...)
	}
	runWireCases(t, []wireCase{
		{"two", join(frame(text, "to"), frame(fin|cont, "m")), []string{"text tom"}},
		{"three", join(frame(binry, "a"), frame(cont, "b"), frame(fin|cont, "c")), []string{"binary abc"}},
		{"empty at the start", join(frame(text, ""), frame(fin|cont, "x")), []string{"text x"}},
		{"empty in the middle", join(frame(text, "a"), frame(cont, ""), frame(fin|cont, "b")), []string{"text ab"}},
		{"empty at the end", join(frame(text, "x"), frame(fin|cont, "")), []string{"text x"}},
		{"all empty", join(frame(text, ""), frame(cont, ""), frame(fin|cont, "")), []string{"text "}},
		{"two messages", join(frame(text, "a"), frame(fin|cont, "b"), frame(binry, "c"), frame(fin|cont, "d")), []string{"text ab", "binary cd"}},
		{"whole, fragmented, whole", join(frame(fin|text, "1"), frame(text, "2"), frame(fin|cont, "3"), frame(fin|text, "4")), []string{"text 1", "text 23", "text 4"}},
		{"a thousand", join(many, frame(fin|cont, "y")), []string{"binary " + short(strings.Repeat("x", 1000)+"y")}},
	})
}

func TestWrongFragmentationIs1002(t *testing.T) {
	runWireCases(t, []wireCase{
		{"continuation without a start", frame(fin|cont, "x"), []string{"close 1002"}},
		{"unfinished continuation without a start", frame(cont, "x"), []string{"close 1002"}},
		{"continuation after a whole message", join(frame(fin|text, "a"), frame(fin|cont, "b")), []string{"text a", "close 1002"}},
		{"continuation after a fragmented message", join(frame(text, "a"), frame(fin|cont, "b"), frame(fin|cont, "c")), []string{"text ab", "close 1002"}},
		{"text inside a message", join(frame(text, "a"), frame(fin|text, "b")), []string{"close 1002"}},
		{"binary inside a message", join(frame(text, "a"), frame(fin|binry, "b")), []string{"close 1002"}},
		{"start inside a message", join(frame(text, "a"), frame(text, "b")), []string{"close 1002"}},
	})
}

func TestControlFramesInsideAMessage(t *testing.T) {
	runWireCases(t, []wireCase{
		{"ping", join(frame(text, "to"), frame(fin|ping, "p"), frame(fin|cont, "m")), []string{"pong p", "text tom"}},
		{"pong", join(frame(text, "to"), frame(fin|pong, "p"), frame(fin|cont, "m")), []string{"text tom"}},
		{"ping before an empty end", join(frame(text, "x"), frame(fin|ping, ""), frame(fin|cont, "")), []string{"pong ", "text x"}},
		{"close", join(frame(text, "to"), frame(fin|closes, closing(4001, "")), frame(fin|cont, "m")), []string{"close 4001"}},
	})
}

func TestPingIsAnsweredWithItsPayload(t *testing.T) {
	runWireCases(t, []wireCase{
		{"empty", frame(fin|ping, ""), []string{"pong "}},
		{"text", frame(fin|ping, "are you there"), []string{"pong are you there"}},
		{"not UTF-8", frame(fin|ping, "\x00\xff\xfe\x80"), []string{"pong \x00\xff\xfe\x80"}},
		{"125 bytes", frame(fin|ping, strings.Repeat("p", 125)), []string{"pong " + strings.Repeat("p", 125)}},
		{"before a message", join(frame(fin|ping, "1"), frame(fin|text, "2")), []string{"pong 1", "text 2"}},
	})
}

func TestUnsolicitedPongIsIgnored(t *testing.T) {
	runWireCases(t, []wireCase{
		{"empty", join(frame(fin|pong, ""), frame(fin|text, "x")), []string{"text x"}},
		{"with payload", join(frame(fin|pong, "?"), frame(fin|text, "x")), []string{"text x"}},
		{"125 bytes", join(frame(fin|pong, strings.Repeat("p", 125)), frame(fin|text, "x")), []string{"text x"}},
	})
}

// RFC 6455 section 5.5.3 lets a server answer only the newest of several pings.
func TestOfSeveralPingsTheNewestIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := dialRaw(t, gatewaytest.ServeLogic(t, gateway.NopLogic{}))
		var pings []byte
		for i := range 500 {
			pings = append(pings, frame(fin|ping, fmt.Sprint(i))...)
		}
		p.send(pings)
		last := -1
		for last < 499 {
			var n int
			if got := p.next(); !scan(got, "pong %d", &n) || n <= last {
				t.Fatalf("received %q after the pong %d", got, last)
			}
			last = n
		}
		p.wantNothing()
	})
}

func scan(s, format string, into *int) bool {
	n, err := fmt.Sscanf(s, format, into)
	return n == 1 && err == nil
}

// A peer that pings without reading must not be able to make the server keep
// more than one answer.
func TestPingsOfAPeerThatDoesNotReadPileUpNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := dialRaw(t, gatewaytest.ServeLogic(t, gateway.NopLogic{}))
		flood := bytes.Repeat(frame(fin|ping, strings.Repeat("p", 125)), 1000)
		for range 8 {
			p.send(flood) // blocks for ever if the server stops reading
		}
		p.send(frame(fin|ping, "last"))
		synctest.Wait()
		pongs := 1
		for got := p.next(); got != "pong last"; got = p.next() {
			pongs++
		}
		// What the connection holds, one write under way and one in the queue.
		if most := gatewaytest.Buffer/127 + 3; pongs > most {
			t.Errorf("received %d pongs, want at most %d", pongs, most)
		}
	})
}

func TestControlFramesThatAreTooLongOrFragmentedAre1002(t *testing.T) {
	var cases []wireCase
	for name, op := range map[string]byte{"close": closes, "ping": ping, "pong": pong} {
		payload := closing(1000, strings.Repeat("x", 124))
		cases = append(cases,
			wireCase{name + " of 126 bytes", frame(fin|op, payload), []string{"close 1002"}},
			wireCase{name + " of 65536 bytes", frame(fin|op, strings.Repeat("x", 65536)), []string{"close 1002"}},
			wireCase{name + " of 2^40 bytes", frameOf(fin|op, 64, 1<<40, true, "x"), []string{"close 1002"}},
			wireCase{name + " in fragments", join(frame(op, closing(1000, "")), frame(fin|cont, "x")), []string{"close 1002"}},
			wireCase{name + " in fragments inside a message", join(frame(text, "a"), frame(op, ""), frame(fin|cont, "b")), []string{"close 1002"}},
			wireCase{name + " in fragments after a message", join(frame(fin|text, "a"), frame(op, "")), []string{"text a", "close 1002"}},
		)
	}
	slices.SortFunc(cases, func(a, b wireCase) int { return cmp.Compare(a.name, b.name) })
	runWireCases(t, cases)
}

// RFC 6455 section 5.1: a server must not take frames that are not masked.
func TestUnmaskedFrameIs1002(t *testing.T) {
	var cases []wireCase
	for _, op := range []byte{text, binry, closes, ping, pong} {
		for _, size := range []int{0, 4, 125} {
			payload := closing(1000, strings.Repeat("u", 123))[:size]
			unmasked := frameOf(fin|op, 7, uint64(size), false, payload)
			cases = append(cases, wireCase{
				fmt.Sprintf("opcode %d, %d bytes", op, size),
				join(frame(fin|text, "good"), unmasked, frame(fin|text, "not delivered")),
				[]string{"text good", "close 1002"},
			})
		}
	}
	cases = append(cases,
		wireCase{"continuation", join(frame(text, "a"), frameOf(fin|cont, 7, 1, false, "b")), []string{"close 1002"}},
		wireCase{"16-bit length", frameOf(fin|text, 16, 200, false, strings.Repeat("u", 200)), []string{"close 1002"}},
		wireCase{"64-bit length", frameOf(fin|text, 64, 70000, false, strings.Repeat("u", 70000)), []string{"close 1002"}},
	)
	runWireCases(t, cases)
}

// A mask of zeros is as good as any: whether it was random cannot be seen.
func TestMaskOfZerosIsAMask(t *testing.T) {
	conforms(t, append([]byte{fin | text, 0x80 | 3, 0, 0, 0, 0}, "tom"...), "text tom")
}

// No extension is agreed on, so every reserved bit is an error (RFC 6455
// section 5.2), and on the control and continuation frames RSV1 always is
// (RFC 7692 section 6.1).
func TestReservedBitIs1002(t *testing.T) {
	var cases []wireCase
	for bits := byte(rsv3); bits <= rsv1|rsv2|rsv3; bits += rsv3 {
		for name, op := range map[string]byte{"text": text, "binary": binry, "ping": ping, "pong": pong, "close": closes} {
			cases = append(cases, wireCase{
				fmt.Sprintf("%03b on %s", bits>>4, name),
				join(frame(fin|text, "good"), frame(fin|bits|op, ""), frame(fin|text, "not delivered")),
				[]string{"text good", "close 1002"},
			})
		}
		cases = append(cases,
			wireCase{fmt.Sprintf("%03b on the first fragment", bits>>4), join(frame(bits|text, "a"), frame(fin|cont, "b")), []string{"close 1002"}},
			wireCase{fmt.Sprintf("%03b on a continuation", bits>>4), join(frame(text, "a"), frame(bits|cont, "b"), frame(fin|cont, "c")), []string{"close 1002"}},
			wireCase{fmt.Sprintf("%03b on the last fragment", bits>>4), join(frame(text, "a"), frame(fin|bits|cont, "b")), []string{"close 1002"}},
			wireCase{fmt.Sprintf("%03b on a ping inside a message", bits>>4), join(frame(text, "a"), frame(fin|bits|ping, "p"), frame(fin|cont, "b")), []string{"close 1002"}},
		)
	}
	slices.SortFunc(cases, func(a, b wireCase) int { return cmp.Compare(a.name, b.name) })
	runWireCases(t, cases)
}

func TestReservedOpcodeIs1002(t *testing.T) {
	var cases []wireCase
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		for _, payload := range []string{"", "x", strings.Repeat("x", 126), strings.Repeat("x", 70000)} {
			cases = append(cases, wireCase{
				fmt.Sprintf("%d with %d bytes", op, len(payload)),
				join(frame(fin|text, "good"), frame(fin|op, payload), frame(fin|text, "not delivered")),
				[]string{"text good", "close 1002"},
			})
		}
		cases = append(cases,
			wireCase{fmt.Sprintf("%d unfinished", op), frame(op, "x"), []string{"close 1002"}},
			wireCase{fmt.Sprintf("%d inside a message", op), join(frame(text, "a"), frame(fin|op, "x"), frame(fin|cont, "b")), []string{"close 1002"}},
		)
	}
	runWireCases(t, cases)
}

// RFC 6455 section 5.2: the minimal number of bytes must be used. A second way
// to write a length is a second way to see where a frame ends, for whatever
// stands between.
func TestLengthInMoreBytesThanItTakesIs1002(t *testing.T) {
	var cases []wireCase
	for name, b0 := range map[string]byte{"text": fin | text, "binary": fin | binry, "first fragment": text, "ping": fin | ping, "close": fin | closes} {
		for _, l := range []struct {
			bits int
			size uint64
		}{{16, 0}, {16, 1}, {16, 2}, {16, 125}, {64, 0}, {64, 1}, {64, 125}, {64, 126}, {64, 65535}} {
			cases = append(cases, wireCase{
				fmt.Sprintf("%s, %d in %d bits", name, l.size, l.bits),
				join(frame(fin|text, "good"), frameOf(b0, l.bits, l.size, true, strings.Repeat("x", int(l.size)))),
				[]string{"text good", "close 1002"},
			})
		}
	}
	cases = append(cases, wireCase{"continuation, 5 in 16 bits", join(frame(text, "a"), frameOf(fin|cont, 16, 5, true, "12345")), []string{"close 1002"}})
	slices.SortFunc(cases, func(a, b wireCase) int { return cmp.Compare(a.name, b.name) })
	runWireCases(t, cases)
}

func TestTopBitOf64BitLengthIs1002(t *testing.T) {
	runWireCases(t, []wireCase{
		{"alone", frameOf(fin|binry, 64, 1<<63, true, "x"), []string{"close 1002"}},
		{"with a small length", frameOf(fin|binry, 64, 1<<63|5, true, "12345"), []string{"close 1002"}},
		{"all bits", frameOf(fin|text, 64, 1<<64-1, true, "x"), []string{"close 1002"}},
		{"on a continuation", join(frame(text, "a"), frameOf(fin|cont, 64, 1<<63, true, "x")), []string{"close 1002"}},
		{"behind a message", join(frame(fin|text, "a"), frameOf(fin|text, 64, 1<<63|0x10000, true, "x")), []string{"text a", "close 1002"}},
	})
}

// validUTF8 and invalidUTF8 are after Markus Kuhn's stress test and RFC 3629.
var validUTF8 = map[string]string{
	"ascii":                    "Hello-?",
	"two bytes":                "\u00b5\u00df\u00f6\u00e4\u00fc\u00e0\u00e1",
	"kosme":                    "\u03ba\u1f79\u03c3\u03bc\u03b5",
	"nul":                      "\x00",
	"smallest of two bytes":    "\u0080",
	"smallest of three bytes":  "\u0800",
	"smallest of four bytes":   "\U00010000",
	"largest of one byte":      "\x7f",
	"largest of two bytes":     "\u07ff",
	"largest of three bytes":   "\uffff", // a noncharacter is a character's equal here
	"largest of four bytes":    "\U0010FFFF",
	"before the surrogates":    "\ud7ff",
	"behind the surrogates":    "\ue000",
	"replacement character":    "\ufffd",
	"byte order mark":          "\ufeff",
	"noncharacters":            "\ufdd0\ufffe\U0001FFFE",
	"emoji and Chinese":        "\U0001F600\u4f60\u597d",
	"four bytes at the buffer": strings.Repeat("a", 1023-14) + "\U0010FFFF",
}

var invalidUTF8 = map[string]string{
	"lonely continuation":         "\x80",
	"last continuation":           "\xbf",
	"continuations":               "\x80\xbf\x80\xbf",
	"start of two, then space":    "\xc3 ",
	"two bytes cut short":         "ab\xc3",
	"three bytes cut short":       "\xe2\x82",
	"four bytes cut short":        "\xf0\x9f\x98",
	"overlong slash in two":       "\xc0\xaf",
	"overlong slash in three":     "\xe0\x80\xaf",
	"overlong slash in four":      "\xf0\x80\x80\xaf",
	"overlong nul":                "\xc0\x80",
	"largest overlong of two":     "\xc1\xbf",
	"largest overlong of three":   "\xe0\x9f\xbf",
	"largest overlong of four":    "\xf0\x8f\xbf\xbf",
	"first surrogate":             "\xed\xa0\x80",
	"last high surrogate":         "\xed\xaf\xbf",
	"first low surrogate":         "\xed\xb0\x80",
	"last surrogate":              "\xed\xbf\xbf",
	"pair of surrogates (CESU-8)": "\xed\xa0\x80\xed\xb0\x80",
	"above U+10FFFF":              "\xf4\x90\x80\x80",
	"five bytes":                  "\xf8\x88\x80\x80\x80",
	"six bytes":                   "\xfc\x84\x80\x80\x80\x80",
	"0xfe":                        "\xfe",
	"0xff":                        "\xff",
	"valid, then not":             "\u03ba\u1f79\u03c3\u03bc\u03b5\xed\xa0\x80edited",
	"at the very end":             strings.Repeat("a", 2000) + "\xf0\x9f",
}

func TestTextThatIsUTF8IsDelivered(t *testing.T) {
	for name, s := range validUTF8 {
		t.Run(name, func(t *testing.T) {
			conforms(t, frame(fin|text, s), "text "+short(s))
			for cut := range min(len(s), 30) { // between any two bytes of a character, too
				data := join(frame(text, s[:cut]), frame(fin|ping, ""), frame(fin|cont, s[cut:]))
				synctest.Test(t, func(t *testing.T) {
					p := dialRaw(t, gatewaytest.ServeLogic(t, &gatewaytest.Recorder{Message: echo}), data)
					p.want("pong ", "text "+short(s))
				})
			}
		})
	}
}

func TestTextThatIsNotUTF8Is1007(t *testing.T) {
	for name, s := range invalidUTF8 {
		t.Run(name, func(t *testing.T) {
			conforms(t, join(frame(fin|text, "good"), frame(fin|text, s), frame(fin|text, "not delivered")), "text good", "close 1007")
			for cut := range min(len(s), 30) {
				data := join(frame(text, s[:cut]), frame(fin|cont, s[cut:]))
				synctest.Test(t, func(t *testing.T) {
					p := dialRaw(t, gatewaytest.ServeLogic(t, &gatewaytest.Recorder{Message: echo}), data)
					p.want("close 1007")
				})
			}
		})
	}
}

func TestBinaryNeedNotBeUTF8(t *testing.T) {
	for name, s := range invalidUTF8 {
		t.Run(name, func(t *testing.T) { conforms(t, frame(fin|binry, s), "binary "+short(s)) })
	}
}

// Not strict: RFC 6455 section 8.1 would let the server fail the connection at
// the first byte that cannot be UTF-8. It waits until the message is whole, so a
// client that breaks the rule is told a little later, and no logic ever sees it.
func TestUTF8IsJudgedWhenTheMessageIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		p := dialRaw(t, gatewaytest.ServeLogic(t, logic))
		p.send(frame(text, "\xff"))
		p.wantNothing()
		p.send(frame(fin|ping, "still there"))
		p.want("pong still there")
		p.send(frame(fin|cont, ""))
		p.want("close 1007", "end")
		_ = p.Close()
		logic.Want(t, "connect", "close 1007 text message is not UTF-8")
	})
}

func TestCloseCodeOfThePeerIsEchoed(t *testing.T) {
	codes := []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999}
	for _, code := range codes {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			conforms(t, frame(fin|closes, closing(code, "")), fmt.Sprint("close ", code))
			synctest.Test(t, func(t *testing.T) {
				var seen gateway.CloseReason
				logic := &gatewaytest.Recorder{Closed: func(_ *gateway.Client, r gateway.CloseReason) { seen = r }}
				p := dialRaw(t, gatewaytest.ServeLogic(t, logic), frame(fin|closes, closing(code, "why not")))
				p.want(fmt.Sprint("close ", code), "end")
				synctest.Wait()
				if want := (gateway.CloseReason{Code: code, Reason: "why not", ByPeer: true}); seen != want {
					t.Errorf("OnClose saw %+v, want %+v", seen, want)
				}
			})
		})
	}
}

// RFC 6455 section 7.4: 1004 to 1006 and 1015 are never on the wire, what is
// below 1000 or above 4999 means nothing, and 1016 to 2999 are not defined.
// 1014 is: "bad gateway", in the IANA registry. gorilla does not know it and
// takes it for an error, which hurts nobody, since it is a server's to send.
func TestCloseCodeThatMayNotBeSentIs1002(t *testing.T) {
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1100, 2000, 2999, 5000, 9999, 65535} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			conforms(t, frame(fin|closes, closing(code, "")), "close 1002")
			conforms(t, frame(fin|closes, closing(code, "reason")), "close 1002")
		})
	}
}

func TestClosePayloads(t *testing.T) {
	runWireCases(t, []wireCase{
		{"empty", frame(fin|closes, ""), []string{"close"}},
		{"half a code", frame(fin|closes, "\x03"), []string{"close 1002"}},
		{"half a code behind a message", join(frame(fin|text, "x"), frame(fin|closes, "\x03")), []string{"text x", "close 1002"}},
		{"reason of 123 bytes", frame(fin|closes, closing(1000, strings.Repeat("r", 123))), []string{"close 1000"}},
		{"reason of 124 bytes", frame(fin|closes, closing(1000, strings.Repeat("r", 124))), []string{"close 1002"}},
		{"reason in Chinese", frame(fin|closes, closing(4000, "\u518d\u89c1")), []string{"close 4000"}},
		{"reason that is not UTF-8", frame(fin|closes, closing(1000, "\xff")), []string{"close 1002"}},
		{"reason with half a character", frame(fin|closes, closing(1000, "\u518d\u89c1"[:5])), []string{"close 1002"}},
		{"reason with a surrogate", frame(fin|closes, closing(1000, "\xed\xa0\x80")), []string{"close 1002"}},
	})
}

func TestEmptyCloseIsLoggedAs1005(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &gatewaytest.Log{}
		logic := &gatewaytest.Recorder{}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic, Logger: log.Logger()}))
		p := dialRaw(t, s, frame(fin|closes, ""))
		p.want("close", "end")
		logic.Want(t, "connect", "close 1005")
		wantAttrs(t, log.Wait(t, "client gone"), map[string]any{"code": int64(1005), "reason": "", "by_peer": true})
	})
}

// RFC 6455 section 5.5.1: what follows a close frame is not for the endpoint.
func TestNothingAfterACloseFrameIsHandled(t *testing.T) {
	for name, after := range map[string][]byte{
		"message":        frame(fin|text, "late"),
		"ping":           frame(fin|ping, "late"),
		"another close":  frame(fin|closes, closing(4002, "")),
		"broken frame":   {0xFF, 0xFF, 0xFF},
		"unmasked frame": frameOf(fin|text, 7, 1, false, "x"),
	} {
		t.Run(name, func(t *testing.T) {
			conforms(t, join(frame(fin|text, "before"), frame(fin|closes, closing(4001, "")), after), "text before", "close 4001")
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{}
				p := dialRaw(t, gatewaytest.ServeLogic(t, logic))
				p.send(join(frame(fin|closes, closing(4001, "")), after))
				p.want("close 4001", "end")
				logic.Want(t, "connect", "close 4001")
			})
		})
	}
}

func TestMessageOfExactlyMaxMessageSizeIsDeliveredAndOneByteMoreIs1009(t *testing.T) {
	const limit = 5000
	o := gateway.EndpointOptions{MaxMessageSize: limit}
	exactly := strings.Repeat("x", limit)
	for _, tt := range []struct {
		name string
		send []byte
		want []string
	}{
		{"exactly", frame(fin|binry, exactly), []string{"binary " + short(exactly)}},
		{"twice exactly", join(frame(fin|binry, exactly), frame(fin|text, exactly)), []string{"binary " + short(exactly), "text " + short(exactly)}},
		{"one more", frame(fin|binry, exactly+"y"), []string{"close 1009"}},
		{"exactly, in fragments", join(frame(text, exactly[1:]), frame(fin|cont, "x")), []string{"text " + short(exactly)}},
		{"exactly, and an empty end", join(frame(text, exactly), frame(fin|cont, "")), []string{"text " + short(exactly)}},
		{"one more, in fragments", join(frame(text, exactly), frame(fin|cont, "y")), []string{"close 1009"}},
		{"one more, and a ping between", join(frame(text, exactly), frame(fin|ping, "p"), frame(fin|cont, "y")), []string{"pong p", "close 1009"}},
		{"much more", frame(fin|binry, strings.Repeat("x", 100*limit)), []string{"close 1009"}},
		{"one more, behind a message", join(frame(fin|text, "x"), frame(fin|binry, exactly+"y")), []string{"text x", "close 1009"}},
		{"too big and not UTF-8", frame(fin|text, strings.Repeat("\xff", limit+1)), []string{"close 1009"}},
	} {
		t.Run(tt.name, func(t *testing.T) { conformsWith(t, o, tt.send, tt.want...) })
	}
}

// A client that is told to stop is usually in the middle of its message, and
// must come to read why, however much it still writes first.
func TestClientThatIsStillSendingSeesThe1009(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic, MaxMessageSize: 1000}))
		p := dialRaw(t, s)
		if _, err := p.Write(frame(fin|binry, strings.Repeat("x", 4<<20))); err != nil {
			t.Fatalf("writing a message that is too big: %v", err)
		}
		if _, err := p.Write(frame(fin|text, "and another")); err != nil {
			t.Fatalf("writing behind it: %v", err)
		}
		p.want("close 1009", "end")
		p.send(frame(fin|closes, closing(1009, "")))
		_ = p.Close()
		logic.Want(t, "connect", "close 1009 message has more than 1000 bytes")
	})
}

// What a header claims costs nothing until the bytes are there. Not strict: such
// a message is refused when more than the limit has come in, not at its header.
func TestHugeClaimAllocatesNothing(t *testing.T) {
	for _, claim := range []uint64{1 << 30, 1 << 40, 1<<63 - 1} {
		t.Run(fmt.Sprint(claim), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{}
				p := dialRaw(t, gatewaytest.ServeLogic(t, logic))
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				p.send(frameOf(fin|binry, 64, claim, true, "abc"))
				p.wantNothing()
				runtime.ReadMemStats(&after)
				if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
					t.Errorf("%d bytes were allocated for 3 bytes of a message that claims %d", grown, claim)
				}
				p.send(make([]byte, gateway.DefaultMaxMessageSize))
				p.want("close 1009", "end")
				_ = p.Close()
				logic.Want(t, "connect", "close 1009 message has more than 1048576 bytes")
			})
		})
	}
}

// The lengths of the fragments together may pass what a 64-bit number holds.
func TestFragmentsWhoseClaimsOverflowAre1009(t *testing.T) {
	for _, tt := range []struct {
		name  string
		claim uint64
		send  []byte
	}{
		{"one byte and 2^63-1", 1<<63 - 1, frame(binry, "x")},
		{"64 KiB and 2^63-1", 1<<63 - 1, frame(binry, strings.Repeat("x", 1<<16))},
		{"64 KiB and 2^63-64 KiB", 1<<63 - 1<<16, frame(binry, strings.Repeat("x", 1<<16))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{}
				p := dialRaw(t, gatewaytest.ServeLogic(t, logic))
				p.send(join(tt.send, frameOf(fin|cont, 64, tt.claim, true, "")))
				p.send(make([]byte, gateway.DefaultMaxMessageSize))
				p.want("close 1009", "end")
			})
		})
	}
}

// Reading a header and stopping there must not hold a connection for ever.
func TestPeerThatStopsInsideAFrameIsCutOff(t *testing.T) {
	for name, part := range map[string][]byte{
		"one byte":          {fin | text},
		"half a length":     {fin | text, 0xFF, 0, 0},
		"half a mask":       {fin | text, 0x81, 1, 2},
		"half a payload":    frameOf(fin|text, 7, 10, true, "12345"),
		"inside a message":  frame(text, "a"),
		"half a close":      frameOf(fin|closes, 7, 2, true, "\x03"),
		"nothing":           {},
		"a message, then 1": join(frame(fin|text, "x"), []byte{fin | ping}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{}
				p := dialRaw(t, gatewaytest.ServeLogic(t, logic))
				p.send(part)
				start := time.Now()
				for got := ""; got != "end"; { // pings, and time-outs of the test's own reading
					if got = p.next(); time.Since(start) > time.Minute {
						t.Fatalf("still connected after a minute: %s", got)
					}
				}
				want := gateway.DefaultPingInterval + gateway.DefaultPingTimeout
				if d := time.Since(start); d < want || d > want+3*time.Second {
					t.Errorf("cut off after %s, want %s", d, want)
				}
			})
		})
	}
}

// Chunks of several connections arrive at random; what comes back on each must
// be what was sent on it, in order, whatever their frames look like.
func TestConnectionsSeeOnlyTheirOwnFrames(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6, 7, 8, rand.Uint64()}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { interleave(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func interleave(t *testing.T, rnd *rand.Rand) {
	type kept struct {
		data []byte
		sum  [sha256.Size]byte
	}
	var mu sync.Mutex
	var all []kept // a message belongs to its receiver: nothing may change it later
	s := gatewaytest.ServeLogic(t, &gatewaytest.Recorder{Message: func(c *gateway.Client, m gateway.Message) error {
		mu.Lock()
		all = append(all, kept{m.Data, sha256.Sum256(m.Data)})
		mu.Unlock()
		return c.Send(m)
	}})
	const peers, messages = 4, 40
	streams := make([][]byte, peers)
	conns := make([]*rawPeer, peers)
	done := make([]chan []string, peers)
	want := make([][]string, peers)
	for i := range peers {
		streams[i], want[i] = randomStream(rnd, messages)
		early := rnd.IntN(100) // behind the handshake
		conns[i] = dialRaw(t, s, streams[i][:early])
		streams[i] = streams[i][early:]
		done[i] = make(chan []string, 1)
		go func() {
			var got []string
			for len(got) < messages {
				f := conns[i].next()
				if strings.HasPrefix(f, "pong ") {
					continue
				}
				got = append(got, f)
				if strings.HasPrefix(f, "close") || f == "end" || strings.HasPrefix(f, "error") {
					break
				}
			}
			done[i] <- got
		}()
	}
	for {
		var left []int
		for i := range streams {
			if len(streams[i]) > 0 {
				left = append(left, i)
			}
		}
		if len(left) == 0 {
			break
		}
		i := left[rnd.IntN(len(left))]
		n := min(1+rnd.IntN(1+rnd.IntN(4000)), len(streams[i]))
		conns[i].send(streams[i][:n])
		streams[i] = streams[i][n:]
	}
	for i := range peers {
		if got := <-done[i]; !slices.Equal(got, want[i]) {
			t.Errorf("connection %d received %d frames that differ from the %d sent", i, len(got), len(want[i]))
		}
	}
	for i, k := range all {
		if sha256.Sum256(k.data) != k.sum {
			t.Errorf("message %d of %d bytes was changed after it was given to the logic", i, len(k.data))
		}
	}
}

// randomStream returns messages of random types, sizes, contents and fragments,
// with control frames between, and what an echo answers but for pongs.
func randomStream(rnd *rand.Rand, messages int) (stream []byte, want []string) {
	sizes := []int{0, 1, 125, 126, 127, 300, 1024, 5000, 65535, 65536, 70000}
	for range messages {
		payload := make([]byte, sizes[rnd.IntN(len(sizes))])
		op, kind := byte(binry), "binary "
		for i := range payload {
			payload[i] = byte(rnd.Uint32())
		}
		if rnd.IntN(2) == 0 {
			op, kind = text, "text "
			for i := range payload {
				payload[i] &= 0x7F
			}
		}
		want = append(want, kind+short(string(payload)))
		for {
			if rnd.IntN(4) == 0 {
				stream = append(stream, frame(fin|ping, "p")...)
			}
			if rnd.IntN(8) == 0 {
				stream = append(stream, frame(fin|pong, "")...)
			}
			if rnd.IntN(2) == 0 {
				stream = append(stream, frame(fin|op, string(payload))...)
				break
			}
			n := rnd.IntN(len(payload) + 1)
			stream = append(stream, frame(op, string(payload[:n]))...)
			payload, op = payload[n:], cont
		}
	}
	return stream, want
}
