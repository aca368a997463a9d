package docs_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/nats-io/nkeys"
)

// TestMain gives the secrets that the pages' Caddyfiles take from the environment.
func TestMain(m *testing.M) {
	for _, name := range []string{"PUSH_TOKEN", "WEBHOOK_SECRET", "NATS_PASSWORD"} {
		if err := os.Setenv(name, strings.Repeat("0123456789abcdef", 2)); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func init() { caddy.RegisterModule(new(execEvents)) }

// execEvents stands for github.com/mholt/caddy-events-exec, which an example uses.
type execEvents struct{}

func (*execEvents) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.exec", New: func() caddy.Module { return new(execEvents) }}
}

func (*execEvents) Handle(context.Context, caddy.Event) error { return nil }

func (*execEvents) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	d.RemainingArgs()
	return nil
}

// Who copies an example from the other pages, too, gets one that Caddy starts with.
func TestCaddyfilesInDocsWork(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil || !slices.Contains(pages, reference) {
		t.Fatalf("found %q (%v)", pages, err)
	}
	files := strings.NewReplacer(files(t)...)
	for _, page := range pages {
		if page == "from-nginx.md" || page == "push-api.md" { // have tests of their own
			continue
		}
		for _, b := range caddyfiles(t, page) {
			config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(files.Replace(b.text)), nil)
			if err == nil && len(warnings) == 0 {
				err = provision(t, config)
			}
			if err != nil || len(warnings) > 0 {
				t.Errorf("%s:%d: %v %v\n%s", page, b.line, err, warnings, b.text)
			}
		}
	}
}

// files makes the files that the pages' Caddyfiles name, and returns each name followed by
// where it is.
func files(t *testing.T) (all []string) {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	key, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"/etc/caddy/internal-ca.pem": certificate,
		"/etc/caddy/node.pem":        certificate,
		"/etc/caddy/node.key":        pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"/etc/caddy/node.nk":         seed,
		"/etc/caddy/node.creds": fmt.Appendf(nil, "-----BEGIN NATS USER JWT-----\neyJ0eXAiOiJKV1QifQ.e30.e30\n------END NATS USER JWT------\n"+
			"-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n", seed),
		"/run/secrets/nats": []byte("secret"),
	} {
		file := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, name, file)
	}
	return all
}

// A link that leads nowhere is worse than none.
func TestLinksOfPagesLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		text := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(read(t, page), "")
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			if file == "" {
				file = page
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %s: %v", page, m[0], err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(t, file), anchor) {
				t.Errorf("%s: %s: no such heading", page, m[0])
			}
		}
	}
}

// anchors returns what GitHub makes of a page's headings.
func anchors(t *testing.T, page string) (all []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(read(t, page), -1) {
		kept := regexp.MustCompile(`[^\pL\pN_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(kept, " ", "-"))
	}
	return all
}

// read returns a file of the repository.
func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// table returns the rows of the first table below a heading, without those of its head.
// In a cell \| is |.
func table(t *testing.T, page, heading string) (rows [][]string) {
	t.Helper()
	_, below, found := strings.Cut("\n"+read(t, page), "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no heading %q", page, heading)
	}
	for line := range strings.Lines(below) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if len(rows) > 0 || strings.HasPrefix(line, "## ") {
				break
			}
			continue
		}
		line = strings.ReplaceAll(strings.Trim(line, "|"), `\|`, "\x00")
		var cells []string
		for cell := range strings.SplitSeq(line, "|") {
			cells = append(cells, strings.ReplaceAll(strings.TrimSpace(cell), "\x00", "|"))
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("%s: no table below %q", page, heading)
	}
	return rows[2:]
}

// headingOf returns the heading that a line of a page is below.
func headingOf(t *testing.T, page string, line int) (heading string) {
	t.Helper()
	for i, text := range strings.Split(read(t, page), "\n") {
		if i < line && strings.HasPrefix(text, "## ") {
			heading = text
		}
	}
	return heading
}

// spans returns what stands between backquotes.
func spans(cell string) (all []string) {
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
		all = append(all, m[1])
	}
	return all
}

// code returns what stands between the only backquotes.
func code(t *testing.T, cell string) string {
	t.Helper()
	all := spans(cell)
	if len(all) != 1 {
		t.Fatalf("%q: want one word in backquotes", cell)
	}
	return all[0]
}

func first(line string) string {
	word, _, _ := strings.Cut(line, " ")
	return word
}
