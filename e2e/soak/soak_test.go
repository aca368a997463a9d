package soak

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// The promise that people change servers for: whatever is done to the configuration, and
// whatever other clients do, nobody who behaves loses a connection or a message, and the
// server is afterwards what it was before.
func TestReloadsDropNobodyAndNothing(t *testing.T) {
	var columns []column
	var notes []string
	run := func(name string, soak func(*testing.T) column) {
		t.Run(name, func(t *testing.T) { columns = append(columns, soak(t)) })
	}
	t.Run("websocket", func(t *testing.T) { columns, notes = soakOurs(t) })
	if *flagPeers {
		run("reverse_proxy", func(t *testing.T) column { return soakCaddy(t, "reverse_proxy", "") })
		run("stream_close_delay", func(t *testing.T) column { return soakCaddy(t, "with stream_close_delay", "stream_close_delay 1h") })
		run("nginx", soakNginx)
	}
	text := report(columns, notes...)
	t.Logf("\n%s", text)
	if err := writeReport(text); err != nil {
		t.Error(err)
	}
}

// soakOurs is the run that is judged.
func soakOurs(t *testing.T) (columns []column, notes []string) {
	t.Helper()
	back := startBackend(t)
	c := newConfigs(t, inCaddy(back.addr))
	caddy := e2etest.StartProgram(t, e2etest.Program(t, "./internal/trialcaddy"), t.TempDir(), c.caddyfile(""), withHTTP2)
	site := fmt.Sprintf("localhost:%d", c.port)
	url := "wss://" + site
	warmUp(t, caddy, site)

	var s samples
	s.before = settled(t, caddy)
	l := newLoad(t, url, caddy.CertPool())
	logic, proxied := newLedger(), newLedger()
	l.add(*flagClients/2, group{name: "trial", path: "/trial", book: logic, dial: l.over, logic: true})
	l.add(*flagClients-*flagClients/2, group{name: "proxied", path: "/proxied", book: proxied, dial: l.over})
	books := []*ledger{logic, proxied}
	var crowds []*crowd
	if *flagStreams > 0 {
		crowds = []*crowd{newCrowd(l, caddy, "HTTP/2", site, *flagStreams), newCrowd(l, caddy, "HTTP/3", site, *flagStreams)}
		books = append(books, crowds[0].book, crowds[1].book)
	}
	l.first.Wait()
	s.full = mustSample(t, caddy)

	var sleepers slow
	sleepers.add(l, *flagSlow, time.Duration(*flagReloads)**flagGap/2)
	watch := newWatcher(t, caddy.Dial(url+"/trial?user=watcher-1", nil))
	s.reloads = reload(t, caddy, c, func(tag string) {
		if got := watch.ask("tag"); got != tag {
			t.Errorf("the logic's tag is %q, want %q: that of the last configuration that was not refused", got, tag)
		}
	})
	sleepers.gone.Wait() // what the server holds for them is no part of what it keeps
	for _, c := range crowds {
		c.quiet()
	}
	time.Sleep(settling)
	s.at = l.connected(books...)
	s.after = mustSample(t, caddy)
	l.finish()
	for _, c := range crowds {
		c.close()
	}
	if err := caddy.Load(c.first()); err != nil { // so that the end compares with the start
		t.Fatal(err)
	}

	var panics int64
	eventually(t, func() string {
		opens, closes, n := watch.counts()
		if panics = n; opens != closes+1 { // the watcher
			return fmt.Sprintf("OnConnect was called %d times, OnClose %d times and one client is left", opens, closes)
		}
		return ""
	})
	opens, _, _ := watch.counts()
	_ = watch.ws.Close()
	connected, gone := 0, 0
	var codes map[string]map[int]int64
	var lost int64
	eventually(t, func() string {
		if connected, gone, codes, lost = comings(caddy); connected != gone {
			return fmt.Sprintf("the log has %d lines of clients connected and %d of clients gone", connected, gone)
		}
		return ""
	})
	eventually(t, func() string {
		if opens, closes := back.opens.Load(), back.closes.Load(); opens != closes {
			return fmt.Sprintf("the backend has had %d connections, and %d have ended", opens, closes)
		}
		return ""
	})
	eventually(t, func() string {
		if s.gone = mustSample(t, caddy); s.gone.goroutines > s.before.goroutines {
			return fmt.Sprintf("%d goroutines, %d before the first client came", s.gone.goroutines, s.before.goroutines)
		}
		if most := s.before.heap + s.before.heap/10 + 5<<20; s.gone.heap > most {
			return fmt.Sprintf("the heap has %d bytes and had %d before the first client came (want 10 %% and 5 MiB more at most)", s.gone.heap, s.before.heap)
		}
		return ""
	})

	if s.gone.goroutines > s.before.goroutines {
		t.Logf("the goroutines that are left:\n%s", s.gone.profile)
	}

	columns = []column{{"in process", logic, s}, {"proxied", proxied, s}}
	for i, name := range []string{"trial", "proxied"} {
		c := columns[i]
		wantNothingLost(t, c.name, c.book, codes[name], 0)
		if worst := time.Duration(c.book.latencies.worst.Load()); worst > *flagWorst {
			t.Errorf("%s: an answer took %s", c.name, worst)
		}
	}
	failed := logic.failed.Load()
	for _, c := range crowds {
		wantNothingLost(t, c.proto, c.book, codes[c.name()], lost)
		failed += c.book.failed.Load()
		columns = append(columns, column{c.proto, c.book, s})
		notes = append(notes, c.String())
	}
	if panics == 0 || panics != failed {
		t.Errorf("the logic panicked %d times and %d clients saw 1011, want as many", panics, failed)
	}
	return columns, append(notes,
		"clients that stop reading: "+sleepers.String(),
		fmt.Sprintf("OnConnect %d, OnClose %d, panics %d; log lines: %d connected, %d gone; backend: %d opened, %d closed",
			opens, opens, panics, connected, gone, back.opens.Load(), back.closes.Load()),
	)
}

// warmUp has a client over each protocol come and go: what a server makes once, at the
// first handshake, is no leak.
func warmUp(t *testing.T, caddy *e2etest.Caddy, site string) {
	t.Helper()
	url := "wss://" + site + "/trial?user=watcher-0"
	ws := caddy.Dial(url, nil)
	newWatcher(t, ws).ask("tag")
	_ = ws.Close()
	for _, proto := range []string{"HTTP/2", "HTTP/3"} {
		lines := newLines(t, caddy, proto, site, 1)
		ws, _, err := lines.dial(url)
		if err != nil {
			t.Fatalf("over %s: %v", proto, err)
		}
		newWatcher(t, ws).ask("tag")
		_ = ws.Close()
		lines.close()
	}
}

// wantNothingLost compares what the clients have seen with what was promised, and with
// the codes of the server's log. A client that is cut when it has just seen the answer of
// its handshake may for the server be lost during that: so many may be.
func wantNothingLost(t *testing.T, name string, book *ledger, logged map[int]int64, early int64) {
	t.Helper()
	why, _, _ := book.tallies()
	if n := book.dropped.Load(); n > 0 {
		t.Errorf("%s: %d connections ended though nobody asked for it: %s", name, n, why)
	}
	if lost, wrong := book.lost.Load(), book.wrong.Load(); lost > 0 || wrong > 0 {
		t.Errorf("%s: %d messages were lost, %d answers were others than were due", name, lost, wrong)
	}
	sent, told := book.sent.Load(), book.answered.Load()+book.abandoned.Load()
	if sent == 0 || sent != told {
		t.Errorf("%s: %d messages were sent, %d are accounted for", name, sent, told)
	}
	if stayed, all := book.stayed.Load(), book.stayers.Load(); stayed != all {
		t.Errorf("%s: %d of %d clients kept their connection through all reloads", name, stayed, all)
	}
	want := map[int]int64{1000: book.bye.Load(), 1006: book.aborted.Load(), 1011: book.failed.Load()}
	for code, n := range logged {
		if code == 1006 && n < want[code] && n >= want[code]-early {
			continue
		}
		if want[code] != n {
			t.Errorf("%s: the log has %d clients that ended with %d, the clients count %d", name, n, code, want[code])
		}
	}
}

// soakCaddy gives the load to Caddy's own reverse_proxy, and judges nothing.
func soakCaddy(t *testing.T, name, option string) column {
	t.Helper()
	back := startBackend(t)
	c := newConfigs(t, byCaddy(back.addr, option))
	caddy := e2etest.StartProgram(t, e2etest.Program(t, "./internal/trialcaddy"), t.TempDir(), c.caddyfile(""))
	caddy.AwaitTLS(fmt.Sprintf("localhost:%d", c.port))
	book := newLedger()
	l := newLoad(t, fmt.Sprintf("wss://localhost:%d", c.port), caddy.CertPool())
	s := samples{before: settled(t, caddy)}
	l.add(*flagClients, group{name: "proxied", path: "/proxied", book: book, dial: l.over})
	l.first.Wait()
	s.full = mustSample(t, caddy)
	s.reloads = reload(t, caddy, c, func(string) {})
	time.Sleep(settling)
	s.at = l.connected(book)
	s.after = mustSample(t, caddy)
	l.finish()
	if err := caddy.Load(c.first()); err != nil {
		t.Fatal(err)
	}
	s.gone = settled(t, caddy)
	return column{name, book, s}
}

// soakNginx gives the load to nginx, and judges nothing. Without one the test is skipped,
// whatever CI says: it is no part of what is tested.
func soakNginx(t *testing.T) column {
	t.Helper()
	back := startBackend(t)
	n := startNginx(t, back.addr)
	book := newLedger()
	l := newLoad(t, "wss://"+n.addr, n.roots)
	s := samples{before: n.sample()}
	l.add(*flagClients, group{name: "proxied", path: "/proxied", book: book, dial: l.over})
	l.first.Wait()
	s.full = n.sample()
	start := time.Now()
	for nth := range *flagReloads {
		time.Sleep(jitter(*flagGap))
		n.reload(t, nth)
		if broken(nth) {
			s.reloads.refused++
		} else {
			s.reloads.done++
		}
	}
	s.reloads.took = time.Since(start)
	time.Sleep(settling) // the master may still be at it
	s.at = l.connected(book)
	s.after = n.sample()
	l.finish()
	time.Sleep(settling)
	s.gone = n.sample()
	return column{n.version(), book, s}
}

// settling is what a server is given to come to rest. Nothing fails if it needs longer.
const settling = 2 * time.Second

func settled(t *testing.T, caddy *e2etest.Caddy) sample {
	t.Helper()
	time.Sleep(settling)
	return mustSample(t, caddy)
}

func mustSample(t *testing.T, caddy *e2etest.Caddy) sample {
	t.Helper()
	s, err := sampleCaddy(caddy)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
