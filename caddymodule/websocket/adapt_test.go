package websocket_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

var update = flag.Bool("update", false, "rewrite what is expected in testdata, to be looked at with git diff")

// adapt turns a Caddyfile into JSON. A Caddyfile that `caddy fmt` would change
// fails the test.
func adapt(t testing.TB, caddyfile string) ([]byte, error) {
	t.Helper()
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	for _, w := range warnings {
		t.Errorf("warning: %s\n%s", w, caddyfile)
	}
	return config, err
}

// The directive is written by people: what each line of it becomes, and what
// each mistake is answered with, is looked at here, word for word.
func TestCaddyfileAdapts(t *testing.T) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/adapt: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".caddyfiletest")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			caddyfile, want, found := strings.Cut(string(data), "----------\n")
			if !found {
				t.Fatal("no line of dashes")
			}
			got, failed := adaptText(t, caddyfile)
			if wantError := strings.HasPrefix(name, "error_"); failed != wantError {
				t.Errorf("an error: %t, want %t: %s", failed, wantError, got)
			}
			golden(t, file, caddyfile+"----------\n", want, got)
			if !failed {
				mustProvision(t, got)
			}
		})
	}
}

// The first command of the README runs this file: that its listeners stay on
// localhost and that it asks for no root is seen here.
func TestCaddyfileExampleAdapts(t *testing.T) {
	for _, name := range []string{"WS_ADDR", "WS_ADMIN"} {
		t.Setenv(name, "") // puts back what was set
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	example, err := os.ReadFile("../../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	got, failed := adaptText(t, string(example))
	if failed {
		t.Fatal(got)
	}
	const file = "testdata/Caddyfile.example.json"
	want, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatal(err)
	}
	golden(t, file, "", string(want), got)
	mustProvision(t, got)
}

// adaptText returns the JSON, indented, or the text of the error.
func adaptText(t *testing.T, caddyfile string) (text string, failed bool) {
	t.Helper()
	config, err := adapt(t, caddyfile)
	if err != nil {
		return err.Error() + "\n", true
	}
	var b bytes.Buffer
	if err := json.Indent(&b, config, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n", false
}

// golden compares, or writes what was got behind head.
func golden(t *testing.T, file, head, want, got string) {
	t.Helper()
	if got == want {
		return
	}
	if !*update {
		t.Errorf("got\n%s\nwant\n%s\nIf what was got is right: go test ./caddymodule/websocket -update", got, want)
		return
	}
	if err := os.WriteFile(file, []byte(head+got), 0o644); err != nil { //nolint:gosec // for everybody, like all sources
		t.Fatal(err)
	}
}

// mustProvision lets Caddy load a configuration without running it: JSON that
// looks right and is refused helps nobody.
func mustProvision(t *testing.T, config string) {
	t.Helper()
	var cfg *caddy.Config
	if err := caddy.StrictUnmarshalJSON([]byte(config), &cfg); err != nil {
		t.Fatal(err)
	}
	cfg.StorageRaw = json.RawMessage(`{"module":"file_system","root":` + quote(t.TempDir()) + `}`)
	if err := caddy.Validate(cfg); err != nil {
		t.Error(err)
	}
}

func quote(s string) string {
	b, _ := json.Marshal(s) // a string can be encoded
	return string(b)
}
