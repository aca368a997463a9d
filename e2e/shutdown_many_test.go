package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// manyClients is how many connections this machine can have: 10,000, 2,000 with the race
// detector, and fewer if there are not enough descriptors, of which each side needs one.
func manyClients(t *testing.T) int {
	t.Helper()
	const full, raced, spare, least = 10_000, 2_000, 500, 500
	n := full
	if e2etest.Raced() {
		n = raced
	}
	// Go raises the soft limit to the hard one at its start, here and in Caddy.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < spare+least {
		t.Skipf("%d descriptors are allowed (ulimit -Hn): %d are needed", limit.Max, spare+least)
	}
	if most := limit.Max - spare; most < uint64(n) {
		t.Logf("%d descriptors are allowed (ulimit -Hn): %d clients, not %d", limit.Max, most, n)
		n = int(most)
	}
	return n
}

// closeCode reads the close frame that is the only thing the server sends, answers it, and
// waits for the end of the connection.
func (c *rawConn) closeCode() (code int, at time.Time, err error) {
	header := make([]byte, 2)
	if _, err := io.ReadFull(c, header); err != nil {
		return 0, time.Now(), err
	}
	at = time.Now()
	if header[0] != 0x88 || header[1] < 2 || header[1] > 125 {
		return 0, at, fmt.Errorf("received a frame that begins with %x, want a close frame", header)
	}
	payload := make([]byte, header[1])
	if _, err := io.ReadFull(c, payload); err != nil {
		return 0, at, err
	}
	// Masked with zeros it is what it is.
	answer := append([]byte{0x88, 0x80 | 2, 0, 0, 0, 0}, payload[:2]...)
	if _, err := c.Write(answer); err != nil {
		return 0, at, fmt.Errorf("answering the close frame: %w", err)
	}
	if _, err := c.Read(header); !errors.Is(err, io.EOF) {
		return 0, at, fmt.Errorf("after the close frame: %w", err)
	}
	return int(binary.BigEndian.Uint16(payload)), at, nil
}

// The stop of a full server: everybody gets the close frame, the last one too, and that
// before Docker's ten seconds are over.
func TestShutdownTellsThousandsOfClientsInTime(t *testing.T) {
	n := manyClients(t)
	const drain = 4 * time.Second // the default
	caddy, addr := startTrial(t, "", "websocket /trial {\n logic trial\n }")

	start := time.Now()
	conns := make([]*rawConn, n)
	var (
		dialers sync.WaitGroup
		taken   atomic.Int64
	)
	for range 32 {
		dialers.Go(func() {
			for {
				i := int(taken.Add(1)) - 1
				if i >= n {
					return
				}
				conn, err := dialRaw(addr)
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				conns[i] = conn
				if status, _, err := conn.get("/trial", true); status != 101 || err != nil {
					t.Errorf("client %d: the handshake is answered with %d, %v", i, status, err)
					return
				}
			}
		})
	}
	dialers.Wait()
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				conn.Close()
			}
		}
	}()
	if t.Failed() {
		return
	}
	t.Logf("%d handshakes took %s", n, time.Since(start))

	type result struct {
		code int
		at   time.Time
		err  error
	}
	results := make(chan result, n)
	for _, conn := range conns {
		go func() {
			code, at, err := conn.closeCode()
			results <- result{code, at, err}
		}()
	}
	start = time.Now()
	caddy.Signal(syscall.SIGTERM)
	var first, last time.Duration
	bad := 0
	for i := range n {
		r := <-results
		after := r.at.Sub(start)
		if i == 0 || after < first {
			first = after
		}
		last = max(last, after)
		if r.code != 1001 {
			if bad++; bad <= 5 {
				t.Errorf("a client ends with %d, %v, %s after SIGTERM, want 1001", r.code, r.err, after)
			}
		}
	}
	wantExit(t, caddy, 0)
	exit := time.Since(start)
	t.Logf("%d clients: the first is told %s after SIGTERM, the last %s; the process ends after %s", n, first, last, exit)
	if bad > 0 {
		t.Errorf("%d of %d clients did not end in order with 1001", bad, n)
	}
	if exit > drain+250*time.Millisecond+exitSlack {
		t.Errorf("the process ended after %s, want drain_timeout of %s", exit, drain)
	}
	wantGone(t, caddy, map[string]int{"/trial": n})
}
