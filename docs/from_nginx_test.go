// Package docs_test reads what is written for people, so that it cannot rot.
package docs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the directives that are not ours

	_ "github.com/caddy-websocket/caddy-websocket/caddymodule"
)

// People copy what they read: each Caddyfile in these pages must be one, whole,
// formatted, and such that Caddy would start with it.
func TestCaddyfilesInPagesWork(t *testing.T) {
	readmes, err := filepath.Glob("../README*.md")
	if err != nil || len(readmes) == 0 {
		t.Fatalf("no README: %v", err)
	}
	for _, page := range append(readmes, "from-nginx.md") {
		blocks := caddyfiles(t, page)
		if len(blocks) == 0 {
			t.Errorf("%s: no block marked caddyfile", page)
		}
		for _, b := range blocks {
			t.Run(fmt.Sprintf("%s:%d", filepath.Base(page), b.line), func(t *testing.T) {
				config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(b.text), nil)
				if err != nil {
					t.Fatalf("%v\n%s", err, b.text)
				}
				for _, w := range warnings {
					t.Errorf("%s\n%s", w, b.text)
				}
				if err := provision(t, config); err != nil {
					t.Errorf("%v\n%s", err, b.text)
				}
			})
		}
	}
}

// provision lets Caddy load a configuration without running it. Certificate files,
// which are the reader's, are left out.
func provision(t *testing.T, config []byte) error {
	t.Helper()
	var cfg *caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &cfg); err != nil {
		return err
	}
	if raw, ok := cfg.AppsRaw["tls"]; ok {
		var tls map[string]json.RawMessage
		if err := json.Unmarshal(raw, &tls); err != nil {
			return err
		}
		delete(tls, "certificates")
		cfg.AppsRaw["tls"] = caddyconfig.JSON(tls, nil)
	}
	cfg.StorageRaw = caddyconfig.JSON(map[string]string{"module": "file_system", "root": t.TempDir()}, nil)
	return caddy.Validate(cfg)
}

// block is a code block of a page.
type block struct {
	line int // of its fence
	text string
}

// caddyfiles returns the blocks of a page that are marked caddyfile, without the
// indentation that they have in a list.
func caddyfiles(t *testing.T, page string) []block {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const fence = "```"
	var (
		blocks []block
		text   strings.Builder
		open   bool // in a block of any language
		ours   bool
		start  int
		indent string
	)
	for i, line := range strings.Split(string(data), "\n") {
		trimmed := strings.TrimLeft(line, " ")
		language, isFence := strings.CutPrefix(trimmed, fence)
		switch {
		case isFence && !open:
			open, ours, start = true, language == "caddyfile", i+1
			indent = line[:len(line)-len(trimmed)]
			text.Reset()
		case isFence:
			if ours {
				blocks = append(blocks, block{start, text.String()})
			}
			open = false
		case open:
			text.WriteString(strings.TrimPrefix(line, indent) + "\n")
		}
	}
	if open {
		t.Errorf("%s:%d: the block is not closed", page, start)
	}
	return blocks
}
