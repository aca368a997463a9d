package cluster

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/natsserver"
	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// What several machines are there for: whichever part fails, the clients of the others notice
// nothing, nobody hears anything twice or late, and when the part is back all is as before,
// without anybody having done anything.
func TestNodesAreOneWhateverFails(t *testing.T) {
	w := found(t)
	defer w.close()
	for _, n := range w.nodes {
		w.open(n)
	}
	began := time.Now()
	agreed := w.agree()
	w.reset()
	first := &phase{name: "nothing", quiet: w.survey(), took: time.Since(began)}
	first.note("all nodes agreed on clients and groups after %s", short(agreed))
	w.must("nothing was done")
	phases := []*phase{first}
	for round := range *flagTimes {
		if last := phases[len(phases)-1]; round > 0 {
			w.back(last, w.nodes[1]) // terminated was the last
		}
		for _, next := range []func(*town) *phase{
			killed, oneServerRestarted, allServersRestarted, cut, frozen, reloaded, commanded, terminated,
		} {
			phases = append(phases, next(w))
		}
	}
	text := report(phases)
	t.Logf("\n%s", text)
	if err := writeReport(text); err != nil {
		t.Error(err)
	}
}

// killed ends a node as the kernel does that has no memory left.
func killed(w *town) *phase {
	n := w.nodes[2]
	// What it was about to pass on is lost with it; and who asks while it is not yet known to
	// be lost is told that it is missing.
	p := w.run("SIGKILL of a node", across(n), 10*time.Second, func(p *phase) {
		n.end(syscall.SIGKILL)
		at := time.Now()
		w.gone(n)
		took := w.await(bound(8*time.Second), func() string { return w.counts(w.others(n)) })
		p.note("the others counted without it after %s", short(took))
		for _, other := range w.others(n) {
			p.note("%s logged it as lost after %s", other, short(other.awaitLine("node lost", n.id, at)))
		}
	})
	w.back(p, n)
	return p
}

// gone waits until the clients of a node that has ended have noticed.
func (w *town) gone(n *node) {
	w.t.Helper()
	for _, p := range w.people {
		if p.home == n && !p.awaitEnd(patience) {
			w.t.Fatalf("client %d is still connected to %s, which has ended", p.i, n)
		}
	}
}

// back starts a node again, and looks whether all is as before.
func (w *town) back(p *phase, n *node) {
	w.t.Helper()
	began := time.Now()
	w.open(n)
	w.agree()
	p.note("it was back, with all its clients, after %s", short(time.Since(began)))
	again := w.survey()
	p.quiet.sent += again.sent
	p.quiet.due += again.due
	p.quiet.came += again.came
	p.took += time.Since(began)
	w.must(p.name + ", and back")
}

// oneServerRestarted is what an operator does to update NATS, a server at a time.
func oneServerRestarted(w *town) *phase {
	return w.run("one NATS server restarted", across(w.nodes[1]), 15*time.Second, func(*phase) { w.restart(w.servers[1]) })
}

func (w *town) restart(s *natsserver.Server) {
	s.Stop()
	time.Sleep(*flagLoad / 2)
	s.Start()
}

func allServersRestarted(w *town) *phase {
	return w.run("all NATS servers, one by one", across(w.nodes...), 15*time.Second, func(*phase) {
		for _, s := range w.servers {
			w.restart(s)
			natsserver.AwaitCluster(w.t, w.servers...)
		}
	})
}

// cut is a node that loses the others, and not its clients.
func cut(w *town) *phase {
	n := w.nodes[0]
	return w.run("the link of a node cut", across(n), 15*time.Second, func(p *phase) {
		w.proxies[0].Cut()
		p.note("it said that it was on its own after %s", short(w.alone(n)))
		time.Sleep(*flagLoad)
		w.proxies[0].Heal()
	})
}

// alone waits until a node says that it can reach its own clients only.
func (w *town) alone(n *node) time.Duration {
	w.t.Helper()
	return w.await(bound(10*time.Second), func() string {
		if known := w.told(n); known.Connected == nil || *known.Connected {
			return fmt.Sprintf("%s believes itself connected", n)
		}
		var got gateway.Reach
		err := n.get("/count", &got)
		if want := len(w.people) / nodes; err != nil || got.Clients != want {
			w.wrong("%s, cut off, counts %+v (%v), want its own %d", n, got, err, want)
		}
		return ""
	})
}

// frozen is a cable that is pulled: nobody is told. It takes until the others have forgotten
// the node.
func frozen(w *town) *phase {
	n := w.nodes[0]
	return w.run("the link of a node frozen", across(n), 15*time.Second, func(p *phase) {
		w.proxies[0].Freeze()
		at := time.Now()
		p.note("it noticed after %s", short(w.alone(n)))
		for _, other := range w.others(n) {
			p.note("%s logged it as lost after %s", other, short(other.awaitLine("node lost", n.id, at)))
		}
		w.proxies[0].Heal()
		at = time.Now()
		for _, other := range w.others(n) {
			p.note("%s logged it as joined %s after that", other, short(other.awaitLine("node joined", n.id, at)))
		}
	})
}

// reloaded gives every node other settings of the broker: another name, and another server.
// Nobody is to notice: nothing may be lost.
func reloaded(w *town) *phase {
	return w.run("reloads to other servers", nobody, 15*time.Second, func(*phase) {
		for i, n := range w.nodes {
			n.nats, n.name = w.servers[(i+1)%nodes].URL(), n.name+"-renamed"
			if err := n.caddy.Load(n.caddyfile()); err != nil {
				w.t.Fatalf("reloading %s: %v", n, err)
			}
			time.Sleep(*flagLoad / 2)
		}
		for i, n := range w.nodes { // and back, for what follows
			n.nats, n.name = w.proxies[i].URL(), fmt.Sprint("node-", i)
			if err := n.caddy.Load(n.caddyfile()); err != nil {
				w.t.Fatalf("reloading %s: %v", n, err)
			}
		}
	})
}

// commanded is what an operator does at one machine about all of them.
func commanded(w *town) *phase {
	here, there := w.nodes[0], w.nodes[2]
	p := w.run("drain of another node", nobody, 15*time.Second, func(p *phase) {
		if got := w.lines(here, "nodes", "--json"); len(got) != nodes {
			w.wrong("nodes: %v", got)
		}
		for _, entry := range w.lines(here, "list", "--node", there.id, "--json") {
			if id := fmt.Sprint(entry["id"]); !strings.HasPrefix(id, there.id+"-") {
				w.wrong("list --node %s has %s", there.id, id)
			}
		}
		w.named++
		const elsewhere = 2 // whose clients, 4 and 5, are at the other two nodes
		got := here.command("send", "--user", userName(elsewhere), message(0, w.named, aim{kind: toUser, n: elsewhere}))
		if got != "2 clients reached\n" {
			w.wrong("send: %q", got)
		}
		for _, i := range []int{4, 5} {
			w.await(patience, func() string {
				if !w.people[i].has(0, w.named) {
					return fmt.Sprintf("client %d has not received what the command line sent", i)
				}
				return ""
			})
			w.people[i].reset(false) // nobody has counted what was sent
		}
		there.ending.Store(true)
		began := time.Now()
		here.command("drain", "--node", there.id, "--restart")
		w.gone(there)
		p.note("the node was empty after %s", short(time.Since(began)))
		here.command("drain", "--node", there.id, "--resume")
		w.connect(there)
		there.ending.Store(false)
	})
	if n := p.ends["1012 server is restarting"]; n != len(w.people)/nodes {
		w.wrong("drained clients have ended with %v", p.ends)
	}
	return p
}

// lines runs a command that prints JSON.
func (w *town) lines(n *node, args ...string) (all []map[string]any) {
	w.t.Helper()
	for line := range strings.Lines(n.command(args...)) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			w.wrong("%v: %q: %v", args, line, err)
		}
		all = append(all, object)
	}
	return all
}

// terminated is a machine that is shut down in order.
func terminated(w *town) *phase {
	n := w.nodes[1]
	p := w.run("SIGTERM of a node", across(n), 10*time.Second, func(p *phase) {
		began := time.Now()
		n.end(syscall.SIGTERM)
		at := time.Now()
		took := w.await(bound(time.Second), func() string {
			for _, other := range w.others(n) {
				if known := w.told(other); len(known.Nodes) != nodes-1 {
					return fmt.Sprintf("%s knows %+v", other, known.Nodes)
				}
			}
			return w.counts(w.others(n))
		})
		p.note("it ended after %s; the others counted without it %s later", short(at.Sub(began)), short(took))
		for _, other := range w.others(n) {
			other.awaitLine("node left", n.id, began)
		}
		w.gone(n)
	})
	if n := p.ends["1001 server is shutting down"]; n != len(w.people)/nodes {
		w.wrong("clients of a node that was shut down have ended with %v", p.ends)
	}
	return p
}
