package caddymodule_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/caddy-websocket/caddy-websocket"

// pkg is a package as the rules see it.
type pkg struct {
	imports   []string // direct
	deps      []string // all that it is built from, itself not included
	standard  bool     // part of Go
	registers bool     // calls caddy.RegisterModule
}

// rule is an arrow of the design that must exist, or one that must not.
type rule struct {
	why   string
	check func(graph map[string]pkg) (violations []string)
}

// The rules of the layout. A package path in them is relative to the module.
var rules = []rule{
	{
		why: "gateway is usable with plain net/http: it costs its users gorilla/websocket and nothing else, least of all Caddy",
		check: onlyDependsOn("gateway", map[string]string{
			"github.com/gorilla/websocket":     "reads the protocol",
			module + "/gateway/internal/inbox": "is of the standard library, and of every broker",
		}),
	},
	{
		why: "gatewaytest tests logic without a server: whoever uses it must not build Caddy for that",
		check: onlyDependsOn("gateway/gatewaytest", map[string]string{
			"github.com/gorilla/websocket":     "is the client",
			module + "/gateway":                "is what it serves",
			module + "/gateway/internal/inbox": "comes with it",
		}),
	},
	{
		why: "brokertest tests brokers that are not ours: whoever uses it must have nothing to do with NATS or Caddy",
		check: onlyDependsOn("gateway/brokertest", map[string]string{
			"github.com/gorilla/websocket":     "comes with the gateway",
			module + "/gateway":                "says what a broker is",
			module + "/gateway/gatewaytest":    "serves the gateways that it joins",
			module + "/gateway/internal/inbox": "comes with it",
		}),
	},
	{
		why: "natsbroker joins gateways under any HTTP server: it costs its users NATS's client and what that needs, not Caddy, and no NATS server",
		check: onlyDependsOnTrees("gateway/natsbroker", map[string]string{
			"github.com/nats-io/nats.go":       "talks to the servers",
			"github.com/nats-io/nkeys":         "reads credentials, and signs with them",
			"github.com/nats-io/nuid":          "names what nats.go waits for",
			"github.com/klauspost/compress":    "is what nats.go compresses WebSocket with",
			"golang.org/x/crypto":              "is what nkeys signs with",
			"golang.org/x/sys":                 "is what x/crypto asks about the processor with",
			"github.com/gorilla/websocket":     "comes with the gateway",
			module + "/gateway":                "is what it joins",
			module + "/gateway/internal/inbox": "is how nodes are told",
		}),
	},
	{
		why: "httpapi answers under any HTTP server, as the gateway does: it costs its users no more than that",
		check: onlyDependsOn("gateway/httpapi", map[string]string{
			"github.com/gorilla/websocket":     "reads the protocol",
			module + "/gateway":                "is what it is about",
			module + "/gateway/internal/inbox": "comes with it",
		}),
	},
	{
		why:   "natsbroker joins nodes under any HTTP server: it brings nats.go along, and no Caddy",
		check: neverDependsOn("gateway/natsbroker", isThirdParty("github.com/caddyserver/"), isTree("caddymodule")),
	},
	{
		why:   "xcaddy's users choose their guests: the push API must bring none along either",
		check: neverDependsOn("caddymodule/websocket/api", isGuest, isTree("gateway/natsbroker"), isThirdParty("github.com/nats-io/")),
	},
	{
		why:   "xcaddy's users choose their guests: neither may the command line",
		check: neverDependsOn("caddymodule/websocket/admin", isGuest, isTree("gateway/natsbroker"), isThirdParty("github.com/nats-io/")),
	},
	{
		why:   "xcaddy's users choose their guests: the host alone must bring none along",
		check: neverDependsOn("caddymodule/websocket", isGuest, isTree("gateway/natsbroker"), isThirdParty("github.com/nats-io/")),
	},
	{
		why: "a guest is a leaf: it compiles, and is tested, without the host and without other guests",
		check: func(graph map[string]pkg) (violations []string) {
			for _, name := range sorted(graph) {
				if !isGuest(name) {
					continue
				}
				other := func(dep string) bool { return isGuest(dep) && dep != name }
				violations = append(violations, neverDependsOn(name, other, isTree("caddymodule/websocket"))(graph)...)
			}
			return violations
		},
	},
	{
		why:   "the binary of the README has everything stock",
		check: imports("cmd/caddy", "caddymodule"),
	},
	{
		why: "`xcaddy build --with …/caddymodule` has everything stock, also the guest that was added last",
		check: func(graph map[string]pkg) (violations []string) {
			for _, name := range sorted(graph) {
				if strings.HasPrefix(name, "caddymodule/") && graph[name].registers {
					violations = append(violations, imports("caddymodule", name)(graph)...)
				}
			}
			return violations
		},
	},
	{
		why: "what only tests and measurements need sits in modules of their own: it must never weigh on users",
		check: func(graph map[string]pkg) (violations []string) {
			for _, name := range sorted(graph) {
				if isTree("e2e")(name) || isTree("bench")(name) || isTree("tools")(name) || isTree("examples/cluster")(name) {
					violations = append(violations, name+" belongs to the product's module")
				}
			}
			return violations
		},
	},
}

// onlyDependsOn allows the standard library, what is internal to the engine, and what is
// listed, each with the reason.
func onlyDependsOn(name string, allowed map[string]string) func(map[string]pkg) []string {
	return func(graph map[string]pkg) (violations []string) {
		p, ok := graph[name]
		if !ok {
			return []string{name + " does not exist"}
		}
		for _, dep := range p.deps {
			if _, ok := allowed[full(dep)]; !ok && !graph[dep].standard && !isTree("gateway/internal")(dep) {
				violations = append(violations, name+" depends on "+dep)
			}
		}
		return violations
	}
}

// onlyDependsOnTrees is onlyDependsOn for what has packages of its own below it: what is
// listed is allowed with them, unless it is ours.
func onlyDependsOnTrees(name string, allowed map[string]string) func(map[string]pkg) []string {
	return func(graph map[string]pkg) (violations []string) {
		p, ok := graph[name]
		if !ok {
			return []string{name + " does not exist"}
		}
		for _, dep := range p.deps {
			listed := false
			for root := range allowed {
				listed = listed || full(dep) == root || !strings.HasPrefix(root, module) && isTree(root)(dep)
			}
			if !listed && !graph[dep].standard {
				violations = append(violations, name+" depends on "+dep)
			}
		}
		return violations
	}
}

// neverDependsOn forbids packages, also by way of others.
func neverDependsOn(name string, forbidden ...func(string) bool) func(map[string]pkg) []string {
	return func(graph map[string]pkg) (violations []string) {
		p, ok := graph[name]
		if !ok {
			return []string{name + " does not exist"}
		}
		for _, dep := range p.deps {
			if slices.ContainsFunc(forbidden, func(f func(string) bool) bool { return f(dep) }) {
				violations = append(violations, name+" depends on "+dep)
			}
		}
		return violations
	}
}

// imports demands a direct import.
func imports(name, imported string) func(map[string]pkg) []string {
	return func(graph map[string]pkg) []string {
		if !slices.Contains(graph[name].imports, imported) {
			return []string{name + " does not import " + imported}
		}
		return nil
	}
}

// isGuest tells whether a package is a guest or belongs to one.
func isGuest(name string) bool {
	return strings.HasPrefix(name, "caddymodule/logic/") || strings.HasPrefix(name, "caddymodule/broker/")
}

// isTree matches a package and all below it.
func isTree(root string) func(string) bool {
	return func(name string) bool { return name == root || strings.HasPrefix(name, root+"/") }
}

func isThirdParty(prefix string) func(string) bool {
	return func(name string) bool { return strings.HasPrefix(name, prefix) }
}

// full undoes short.
func full(name string) string {
	if first, _, _ := strings.Cut(name, "/"); strings.Contains(first, ".") {
		return name
	}
	return path.Join(module, name)
}

// short returns a package path relative to the module, if it is in it.
func short(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

func sorted(graph map[string]pkg) []string { return slices.Sorted(maps.Keys(graph)) }

// The arrows of the layout are what keeps the engine usable without Caddy, and
// a build without a guest free of that guest.
func TestPackagesImportOnlyWhatTheLayoutAllows(t *testing.T) {
	graph := packages(t)
	for _, r := range rules {
		for _, v := range r.check(graph) {
			t.Errorf("%s: %s", v, r.why)
		}
	}
	for _, dir := range []string{"e2e", "bench", "tools", "examples/cluster"} {
		if _, err := os.Stat(filepath.Join("..", dir)); err != nil {
			continue // not there yet
		}
		if _, err := os.Stat(filepath.Join("..", dir, "go.mod")); err != nil {
			t.Errorf("%s has no go.mod of its own: what it needs would weigh on users: %v", dir, err)
		}
	}
}

// A rule that cannot fail keeps nothing.
func TestImportRulesFindViolations(t *testing.T) {
	good := func() map[string]pkg {
		return map[string]pkg{
			"fmt":                           {standard: true},
			"github.com/gorilla/websocket":  {},
			"github.com/caddyserver/caddy":  {},
			"github.com/nats-io/nats.go":    {},
			"gateway":                       {deps: []string{"fmt", "gateway/internal/inbox", "github.com/gorilla/websocket"}},
			"gateway/internal/inbox":        {deps: []string{"fmt"}},
			"gateway/brokertest":            {deps: []string{"fmt", "gateway", "gateway/internal/inbox", "github.com/gorilla/websocket"}},
			"gateway/gatewaytest":           {deps: []string{"fmt", "gateway", "github.com/gorilla/websocket"}},
			"gateway/httpapi":               {deps: []string{"fmt", "gateway", "github.com/gorilla/websocket"}},
			"gateway/natsbroker":            {deps: []string{"gateway", "gateway/internal/inbox", "github.com/nats-io/nats.go", "github.com/nats-io/nats.go/util"}},
			"caddymodule/websocket":         {registers: true, deps: []string{"gateway", "github.com/caddyserver/caddy"}},
			"caddymodule/websocket/api":     {registers: true, deps: []string{"caddymodule/websocket", "gateway/httpapi"}},
			"caddymodule/websocket/admin":   {registers: true, deps: []string{"caddymodule/websocket", "gateway/httpapi"}},
			"caddymodule/websocket/syntax":  {},
			"caddymodule/logic/echo":        {registers: true, deps: []string{"gateway", "github.com/caddyserver/caddy"}},
			"caddymodule/broker/nats":       {registers: true, deps: []string{"gateway/natsbroker", "github.com/nats-io/nats.go"}},
			"caddymodule":                   {imports: []string{"caddymodule/websocket", "caddymodule/websocket/admin", "caddymodule/websocket/api", "caddymodule/logic/echo", "caddymodule/broker/nats"}},
			"cmd/caddy":                     {imports: []string{"caddymodule"}},
			"examples/chat":                 {deps: []string{"gateway"}},
			"caddymodule/websocket/websock": {},
		}
	}
	for _, tt := range []struct {
		name   string
		change func(map[string]pkg)
		want   string // "" is none
	}{
		{"nothing", func(map[string]pkg) {}, ""},
		{"gateway on Caddy", depend("gateway", "github.com/caddyserver/caddy"), "gateway depends on github.com/caddyserver/caddy"},
		{"gateway on nats.go", depend("gateway", "github.com/nats-io/nats.go"), "gateway depends on github.com/nats-io/nats.go"},
		{"gateway on the product", depend("gateway", "caddymodule/websocket"), "gateway depends on caddymodule/websocket"},
		{"gatewaytest on Caddy", depend("gateway/gatewaytest", "github.com/caddyserver/caddy"), "gateway/gatewaytest depends on github.com/caddyserver/caddy"},
		{"natsbroker on Caddy", depend("gateway/natsbroker", "github.com/caddyserver/caddy"), "gateway/natsbroker depends on github.com/caddyserver/caddy"},
		{"natsbroker on a server", depend("gateway/natsbroker", "github.com/nats-io/nats-server/v2"), "gateway/natsbroker depends on github.com/nats-io/nats-server/v2"},
		{"natsbroker on the product", depend("gateway/natsbroker", "gateway/httpapi"), "gateway/natsbroker depends on gateway/httpapi"},
		{"brokertest on a broker", depend("gateway/brokertest", "gateway/natsbroker"), "gateway/brokertest depends on gateway/natsbroker"},
		{"host on a guest", depend("caddymodule/websocket", "caddymodule/logic/echo"), "caddymodule/websocket depends on caddymodule/logic/echo"},
		{"host on a broker's client", depend("caddymodule/websocket", "github.com/nats-io/nats.go"), "caddymodule/websocket depends on github.com/nats-io/nats.go"},
		{"httpapi on Caddy", depend("gateway/httpapi", "github.com/caddyserver/caddy"), "gateway/httpapi depends on github.com/caddyserver/caddy"},
		{"natsbroker on Caddy", depend("gateway/natsbroker", "github.com/caddyserver/caddy"), "gateway/natsbroker depends on github.com/caddyserver/caddy"},
		{"push API on a guest", depend("caddymodule/websocket/api", "caddymodule/logic/echo"), "caddymodule/websocket/api depends on caddymodule/logic/echo"},
		{"command line on a guest", depend("caddymodule/websocket/admin", "caddymodule/logic/echo"), "caddymodule/websocket/admin depends on caddymodule/logic/echo"},
		{"guest on the host", depend("caddymodule/logic/echo", "caddymodule/websocket"), "caddymodule/logic/echo depends on caddymodule/websocket"},
		{"guest on a package below the host", depend("caddymodule/logic/echo", "caddymodule/websocket/syntax"), "caddymodule/logic/echo depends on caddymodule/websocket/syntax"},
		{"guest on a guest", depend("caddymodule/broker/nats", "caddymodule/logic/echo"), "caddymodule/broker/nats depends on caddymodule/logic/echo"},
		{"binary without the list", func(g map[string]pkg) { g["cmd/caddy"] = pkg{} }, "cmd/caddy does not import caddymodule"},
		{"forgotten guest", func(g map[string]pkg) { g["caddymodule/logic/new"] = pkg{registers: true} }, "caddymodule does not import caddymodule/logic/new"},
		{"forgotten part of the host", func(g map[string]pkg) { g["caddymodule/websocket/new"] = pkg{registers: true} }, "caddymodule does not import caddymodule/websocket/new"},
		{"lost engine", func(g map[string]pkg) { delete(g, "gateway") }, "gateway does not exist"},
		{"e2e without a go.mod", func(g map[string]pkg) { g["e2e/browser"] = pkg{} }, "e2e/browser belongs to the product's module"},
		{"bench without a go.mod", func(g map[string]pkg) { g["bench"] = pkg{} }, "bench belongs to the product's module"},
		{"a NATS server without a go.mod", func(g map[string]pkg) { g["examples/cluster"] = pkg{} }, "examples/cluster belongs to the product's module"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			graph := good()
			tt.change(graph)
			var found []string
			for _, r := range rules {
				found = append(found, r.check(graph)...)
			}
			if tt.want == "" && len(found) > 0 || tt.want != "" && !slices.Contains(found, tt.want) {
				t.Errorf("found %q, want %q", found, tt.want)
			}
		})
	}
}

// depend adds an arrow.
func depend(name, on string) func(map[string]pkg) {
	return func(graph map[string]pkg) {
		p := graph[name]
		p.deps = append(p.deps, on)
		graph[name] = p
	}
}

// registration is how a package becomes a Caddy module.
var registration = regexp.MustCompile(`(?m)^\s*caddy\.RegisterModule\(`)

// packages returns the module's packages and all that they are built from,
// without tests.
func packages(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps,Dir,GoFiles,Module", "./...")
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	graph := make(map[string]pkg)
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p struct {
			ImportPath, Dir        string
			Standard               bool
			Imports, Deps, GoFiles []string
			Module                 *struct{ Path string }
		}
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		entry := pkg{standard: p.Standard}
		if p.Module != nil && p.Module.Path == module {
			entry.imports, entry.deps = shorten(p.Imports), shorten(p.Deps)
			entry.registers = slices.ContainsFunc(p.GoFiles, func(file string) bool {
				source, err := os.ReadFile(filepath.Join(p.Dir, file))
				if err != nil {
					t.Fatal(err)
				}
				return registration.Match(source)
			})
		}
		graph[short(p.ImportPath)] = entry
	}
	if n := len(graph); n < 100 {
		t.Fatalf("go list names only %d packages", n)
	}
	return graph
}

func shorten(paths []string) []string {
	names := make([]string, 0, len(paths))
	for _, p := range paths {
		names = append(names, short(p))
	}
	return names
}
