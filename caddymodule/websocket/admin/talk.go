package admin

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// talk is a connection between a terminal, or a script, and a server.
type talk struct {
	conn    *websocket.Conn
	out     io.Writer
	kind    int // of the messages that are sent
	verbose bool
	raw     bool
	json    bool
	ping    time.Duration // 0 is never
	wait    time.Duration // after the end of the input

	mu   sync.Mutex
	errs io.Writer // guarded by mu
}

// note shows something with --verbose.
func (t *talk) note(format string, args ...any) {
	if t.verbose {
		t.say(format, args...)
	}
}

// say prints a line on the standard error.
func (t *talk) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.errs, format+"\n", args...)
}

// input is what was read from the standard input.
type input struct {
	line string
	err  error // io.EOF at the end
}

// errClosing is what is wrong once a close was sent and nothing answers.
var errClosing = fmt.Errorf("the server did not answer the close within %s", closeTimeout)

// run passes on what comes in either direction until the connection ends. When ctx
// ends it closes; interrupted is called then, so that the next Ctrl-C ends the
// process.
func (t *talk) run(ctx context.Context, interrupted func(), stdin io.Reader) error {
	received, through := make(chan error, 1), make(chan struct{})
	t.handleControl()
	go func() {
		defer close(through)
		received <- t.receive()
	}()
	ended := make(chan struct{})
	defer func() {
		close(ended)
		_ = t.conn.Close()
		<-through
	}()
	lines := make(chan input)
	go read(stdin, lines, ended) // nothing wakes it from a terminal: it ends with the process
	var pings <-chan time.Time
	if t.ping > 0 {
		ticker := time.NewTicker(t.ping)
		defer ticker.Stop()
		pings = ticker.C
	}
	var (
		interrupt        = ctx.Done()
		waited, deadline <-chan time.Time
		failed           error
	)
	finish := func() {
		lines, pings, waited, interrupt = nil, nil, nil, nil
		_ = t.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(closeTimeout))
		deadline = time.After(closeTimeout)
	}
	for {
		select {
		case err := <-received:
			return cmp.Or(failed, t.end(err))
		case in := <-lines:
			switch {
			case in.err == nil:
				in.err = t.send(in.line)
			case errors.Is(in.err, io.EOF) && t.wait > 0:
				lines, waited = nil, time.After(t.wait)
				continue
			}
			if in.err == nil {
				continue
			}
			if !errors.Is(in.err, io.EOF) {
				failed = in.err
			}
			finish()
		case <-pings:
			_ = t.conn.WriteControl(websocket.PingMessage, fmt.Append(nil, time.Now().UnixNano()), time.Now().Add(closeTimeout))
		case <-waited:
			finish()
		case <-interrupt:
			interrupted()
			finish()
		case <-deadline:
			return cmp.Or(failed, errClosing)
		}
	}
}

// read reads lines, of any length, until the end of the input or the connection.
func read(from io.Reader, to chan<- input, ended <-chan struct{}) {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		if err == nil || line != "" {
			line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
			select {
			case to <- input{line: line}:
			case <-ended:
				return
			}
		}
		if err != nil {
			select {
			case to <- input{err: err}:
			case <-ended:
			}
			return
		}
	}
}

// send sends a line.
func (t *talk) send(line string) error {
	if t.kind == websocket.TextMessage && !utf8.ValidString(line) {
		return fmt.Errorf("the line %.50q is not UTF-8, which a text message must be: use --binary", line)
	}
	const standstill = 30 * time.Second
	_ = t.conn.SetWriteDeadline(time.Now().Add(standstill))
	err := t.conn.WriteMessage(t.kind, []byte(line))
	if errors.Is(err, websocket.ErrCloseSent) {
		return nil // the server has closed, which is about to be read
	}
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}

// handleControl shows control frames.
func (t *talk) handleControl() {
	answer := t.conn.PingHandler()
	t.conn.SetPingHandler(func(data string) error {
		t.note("ping from the server, answered")
		return answer(data)
	})
	t.conn.SetPongHandler(func(data string) error {
		var sent int64
		if _, err := fmt.Sscan(data, &sent); err == nil {
			t.note("pong after %.1f ms", float64(time.Since(time.Unix(0, sent)))/float64(time.Millisecond))
		}
		return nil
	})
}

// receive prints messages until the connection ends, and returns how.
func (t *talk) receive() error {
	for {
		kind, data, err := t.conn.ReadMessage()
		if err != nil {
			return err
		}
		if err := t.print(kind, data); err != nil {
			return fmt.Errorf("printing a message: %w", err)
		}
	}
}

func (t *talk) print(kind int, data []byte) error {
	var err error
	switch {
	case t.json:
		var line []byte
		if line, err = messageJSON(kind, data); err == nil {
			_, err = fmt.Fprintf(t.out, "%s\n", line)
		}
	case t.raw && kind == websocket.BinaryMessage:
		_, err = t.out.Write(data)
	case t.raw:
		_, err = fmt.Fprintf(t.out, "%s\n", data)
	case kind == websocket.BinaryMessage:
		_, err = fmt.Fprintf(t.out, "binary, %s\n%s", count(len(data), "byte", "bytes"), hex.Dump(data))
	default:
		_, err = fmt.Fprintln(t.out, safe(string(data)))
	}
	return err
}

// end says how the connection has ended. Whoever began to close, the server's code
// counts: its own close may have been on the way already.
func (t *talk) end(err error) error {
	closed, ok := errors.AsType[*websocket.CloseError](err)
	switch {
	case !ok || closed.Code == websocket.CloseAbnormalClosure:
		return fmt.Errorf("the connection was lost, without a close frame: %w", err)
	case closed.Code == websocket.CloseNormalClosure, closed.Code == websocket.CloseNoStatusReceived:
		t.say("closed: %s", closeText(closed))
		return nil
	}
	return fmt.Errorf("closed by the server: %s", closeText(closed))
}

func closeText(e *websocket.CloseError) string {
	if e.Code == websocket.CloseNoStatusReceived {
		return "without a code"
	}
	if e.Text == "" {
		return fmt.Sprint(e.Code)
	}
	return fmt.Sprintf("%d %q", e.Code, e.Text)
}
