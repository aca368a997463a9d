package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
	"github.com/caddy-websocket/caddy-websocket/e2e/internal/natsserver"
)

// brokerSite is a Caddyfile with this line of the global option websocket.
func brokerSite(site, broker string) string {
	return fmt.Sprintf(`{
	auto_https off
	websocket {
		%s
	}
}
http://%s {
	bind 127.0.0.1
	websocket /ws {
		logic echo
	}
}
`, broker, site)
}

func newSite(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", e2etest.ReservePort(t))
}

// unreachable is the URL of a NATS server that is not there.
func unreachable(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("nats://127.0.0.1:%d", e2etest.ReservePort(t)) // on which nobody listens
}

// brokerTimeout is for what takes no time but for a busy machine.
const brokerTimeout = 30 * time.Second

// waitConnections waits until a NATS server has so many clients.
func waitConnections(t *testing.T, s *natsserver.Server, n int) []uint64 {
	t.Helper()
	for deadline := time.Now().Add(brokerTimeout); ; time.Sleep(10 * time.Millisecond) {
		ids := s.ClientIDs()
		if len(ids) == n {
			return ids
		}
		if time.Now().After(deadline) {
			t.Fatalf("NATS has %d clients, want %d", len(ids), n)
		}
	}
}

// waitConnected waits until the metrics say whether the broker is connected.
func waitConnected(t *testing.T, caddy *e2etest.Caddy, value string) {
	t.Helper()
	for deadline := time.Now().Add(brokerTimeout); ; time.Sleep(20 * time.Millisecond) {
		metrics, err := caddy.AdminGet("/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(metrics, `caddy_websocket_cluster_connected{gateway="default"} `+value+"\n") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("caddy_websocket_cluster_connected has not become %s", value)
		}
	}
}

// caddyCommand runs Caddy with a command on a Caddyfile, in a home of its own, and returns
// what it printed and how long it took.
func caddyCommand(t *testing.T, command, caddyfile string) (string, time.Duration, error) {
	t.Helper()
	home, err := os.MkdirTemp("", "caddy") //nolint:usetesting // with a test name in it, the path of the socket may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	config := filepath.Join(home, "Caddyfile")
	if err := os.WriteFile(config, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := e2etest.Binary(t)
	ctx, cancel := context.WithTimeout(t.Context(), brokerTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, command, "--config", config, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home, "CADDY_ADMIN=unix/"+filepath.Join(home, "admin.sock"))
	start := time.Now()
	out, err := cmd.CombinedOutput()
	return string(out), time.Since(start), err
}

// A configuration is checked on laptops and in CI, which the broker of production cannot
// be reached from.
func TestValidateNeedsNoBroker(t *testing.T) {
	config := brokerSite(newSite(t), "broker nats "+unreachable(t)+" {\n\t\t\trequired 20s\n\t\t}")
	for _, command := range []string{"adapt", "validate"} {
		out, took, err := caddyCommand(t, command, config)
		if err != nil || strings.Contains(out, "connecting to NATS") {
			t.Errorf("caddy %s: %v after %s\n%s", command, err, took, out)
		}
		if took > 15*time.Second {
			t.Errorf("caddy %s took %s: it waited for the broker", command, took)
		}
	}
	out, _, err := caddyCommand(t, "validate", brokerSite(newSite(t), "broker nats http://127.0.0.1"))
	if err == nil || !strings.Contains(out, "allowed are nats, tls, ws and wss, at ") {
		t.Errorf("caddy validate: %v\n%s", err, out)
	}
}

// A node that must not serve alone ends at once with what is wrong, so that systemd or an
// operator sees it, and does not wait for ever.
func TestRequiredBrokerThatIsNotThereRefusesTheStart(t *testing.T) {
	url := unreachable(t)
	out, took, err := caddyCommand(t, "run", brokerSite(newSite(t), "broker nats "+url+" {\n\t\t\trequired 500ms\n\t\t}"))
	if _, exited := errors.AsType[*exec.ExitError](err); !exited || took > 20*time.Second {
		t.Errorf("caddy run: %v after %s", err, took)
	}
	for _, want := range []string{"websocket app module: start: broker nats: required, and not connected within 500ms", strings.TrimPrefix(url, "nats://")} {
		if !strings.Contains(out, want) {
			t.Errorf("caddy run does not say %q:\n%s", want, out)
		}
	}
}

// The same in a reload: the node goes on as it was, and nobody notices.
func TestRequiredBrokerThatIsNotThereRefusesTheReload(t *testing.T) {
	nats := natsserver.Start(t)
	site := newSite(t)
	good := brokerSite(site, "broker nats "+nats.URL()+" {\n\t\t\trequired\n\t\t}")
	caddy := e2etest.StartCaddy(t, t.TempDir(), good)
	ws := caddy.Dial("ws://"+site+"/ws", nil)
	before := waitConnections(t, nats, 1)
	err := caddy.Reload(brokerSite(site, "broker nats "+unreachable(t)+" {\n\t\t\trequired 300ms\n\t\t}"))
	if err == nil || !strings.Contains(err.Error(), "required, and not connected within 300ms") {
		t.Errorf("reloading: %v", err)
	}
	if got := exchange(t, ws, "still"); got != "still" {
		t.Errorf("the client that was there is answered %q", got)
	}
	if got := exchange(t, caddy.Dial("ws://"+site+"/ws", nil), "new"); got != "new" {
		t.Errorf("a new client is answered %q", got)
	}
	if now := nats.ClientIDs(); !slices.Equal(now, before) {
		t.Errorf("NATS has the clients %v, and had %v", now, before)
	}
}

// misfit is a NATS server that lets caddy in, with the permissions of another prefix.
func misfit(t *testing.T) (broker string) {
	t.Helper()
	s := natsserver.Start(t, func(o *server.Options) {
		of := &server.SubjectPermission{Allow: []string{"caddy-websocket.>"}}
		o.Users = []*server.User{{Username: "caddy", Password: "secret", Permissions: &server.Permissions{Publish: of, Subscribe: of}}}
	})
	return "broker nats " + s.URL() + " {\n\t\t\tuser caddy secret\n\t\t\treconnect_wait 100ms\n"
}

// A prefix that the server's permissions do not have leaves a node as alone as a server
// that is not there: a start that requires the broker says so, and does not serve. So it
// is with a password that the server does not have.
func TestRequiredBrokerThatRefusesRefusesTheStart(t *testing.T) {
	broker := misfit(t)
	// Who has mistyped a password must not look for a server that is slow.
	out, _, err := caddyCommand(t, "run", brokerSite(newSite(t), strings.Replace(broker, " secret\n", " wrong\n", 1)+"required\n\t\t}"))
	if _, exited := errors.AsType[*exec.ExitError](err); !exited || !strings.Contains(out, "required, and refused: ") || !strings.Contains(out, "Authorization Violation") {
		t.Errorf("caddy run with another password: %v\n%s", err, out)
	}
	out, _, err = caddyCommand(t, "run", brokerSite(newSite(t), broker+"prefix shop\n\t\t\trequired\n\t\t}"))
	if _, exited := errors.AsType[*exec.ExitError](err); !exited {
		t.Errorf("caddy run: %v", err)
	}
	for _, want := range []string{"start: broker nats: required, and refused: ", `gateway \"default\"`, `user \"caddy\" may not `, "shop.default.", `prefix \"shop\"`} {
		if !strings.Contains(out, want) {
			t.Errorf("caddy run does not say %q:\n%s", want, out)
		}
	}
}

// Who reloads with such a prefix sees it where he sees that the broker is gone.
func TestReloadWithAPrefixThatIsNotAllowedLeavesTheNodeOnItsOwn(t *testing.T) {
	broker := misfit(t)
	site := newSite(t)
	caddy := e2etest.StartCaddy(t, t.TempDir(), brokerSite(site, broker+"required\n\t\t}"))
	waitConnected(t, caddy, "1")
	if err := caddy.Reload(brokerSite(site, broker+"prefix shop\n\t\t}")); err != nil {
		t.Fatal(err)
	}
	caddy.WaitLog(func(entry map[string]any) bool {
		why := fmt.Sprint(entry["error"])
		return entry["msg"] == "the broker cannot be reached: this node is on its own" && strings.Contains(why, `user "caddy" may not `) && strings.Contains(why, `prefix "shop"`)
	})
	waitConnected(t, caddy, "0")
	if got := exchange(t, caddy.Dial("ws://"+site+"/ws", nil), "alone"); got != "alone" {
		t.Errorf("a client is answered %q", got)
	}
}

// A server that cannot reach the others is better than none: it serves, says that it is
// alone, and joins them by itself.
func TestNodeStartsAloneAndConnectsWhenItCan(t *testing.T) {
	nats := natsserver.Start(t)
	nats.Stop()
	site := newSite(t)
	caddy := e2etest.StartCaddy(t, t.TempDir(), brokerSite(site, "broker nats "+nats.URL()+" {\n\t\t\treconnect_wait 100ms\n\t\t}"))
	ws := caddy.Dial("ws://"+site+"/ws", nil)
	if got := exchange(t, ws, "alone"); got != "alone" {
		t.Errorf("the client is answered %q", got)
	}
	const alone = "connecting to NATS failed, trying on"
	caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == alone })
	waitConnected(t, caddy, "0")
	nats.Start()
	waitConnections(t, nats, 1)
	waitConnected(t, caddy, "1")
	caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == "connected to NATS" })
	said := 0
	for _, entry := range caddy.Log() {
		if entry["msg"] == alone && entry["logger"] == "websocket.brokers.nats" {
			said++
		}
	}
	if said != 1 {
		t.Errorf("it was said %d times that NATS cannot be reached, want once", said)
	}
	if got := exchange(t, ws, "together"); got != "together" {
		t.Errorf("the client is answered %q", got)
	}
}

// Each reload of each node would be a moment in which it hears nothing, if the connection
// were made anew.
func TestReloadKeepsTheBrokersConnection(t *testing.T) {
	nats, other := natsserver.Start(t), natsserver.Start(t)
	site := newSite(t)
	broker := "broker nats " + nats.URL()
	caddy := e2etest.StartCaddy(t, t.TempDir(), brokerSite(site, broker))
	ws := caddy.Dial("ws://"+site+"/ws", nil)
	before := waitConnections(t, nats, 1)
	reload := func(broker string) {
		t.Helper()
		if err := caddy.Reload(brokerSite(site, broker)); err != nil {
			t.Fatal(err)
		}
		if got := exchange(t, ws, broker); got != broker {
			t.Fatalf("after a reload with %s the client is answered %q", broker, got)
		}
	}
	reload(broker + "\n\t\tclose_rate 100")
	reload(broker + " {\n\t\t\trequired\n\t\t}")
	if now := nats.ClientIDs(); !slices.Equal(now, before) {
		t.Errorf("NATS has the clients %v after reloads with equal settings, and had %v", now, before)
	}
	reload("broker nats " + other.URL())
	waitConnections(t, other, 1)
	waitConnections(t, nats, 0)
	waitConnected(t, caddy, "1")
	reload("")
	waitConnections(t, other, 0)
}
