package admin_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// People copy commands from the page: each must exist, with the flags that it names.
func TestCommandsOfTheDocumentationExist(t *testing.T) {
	page, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("caddy websocket ([^`\n|&\\\\]*)").FindAllStringSubmatch(string(page), -1)
	if len(found) < 30 {
		t.Fatalf("found only %d commands", len(found))
	}
	quoted := regexp.MustCompile(`'[^']*'|"[^"]*"`)
	for _, match := range found {
		args := append(strings.Fields(quoted.ReplaceAllString(match[1], "text")), "--help")
		if got := runCommand(t, "", args...); got.code != 0 || !strings.Contains(got.out, "caddy websocket "+args[0]+" ") {
			t.Errorf("caddy websocket %s: %s", match[1], got)
		}
	}
}
