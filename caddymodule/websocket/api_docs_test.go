package websocket_test

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

func pushDocs(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/push-api.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What is in the documentation is copied: it has to be taken by Caddy.
func TestCaddyfilesOfThePushDocsAdapt(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```caddyfile\n(.*?)```").FindAllStringSubmatch(pushDocs(t), -1)
	if len(blocks) < 5 {
		t.Fatalf("%d Caddyfiles found", len(blocks))
	}
	for _, block := range blocks {
		if _, err := adapt(t, block[1]); err != nil {
			t.Errorf("%v\n%s", err, block[1])
		}
	}
}

// Every line with a call is done as it stands, and nothing of it is refused.
func TestCallsOfThePushDocsAreAnswered(t *testing.T) {
	s := start(t, pushSite("token "+pushToken))
	api := s.caller(t, "http:/push", pushToken)
	s.dial("ws:/chat?user=7&group=room:1")
	docs := pushDocs(t)
	lines := regexp.MustCompile(`(?m)^(?:get|push (POST|PUT|PATCH) +) *'?([/\w.?=&:-]+)'?(?: +'(.+)')?$`).FindAllStringSubmatch(docs, -1)
	if len(lines) < 19 {
		t.Fatalf("%d calls found: %q", len(lines), lines)
	}
	for _, line := range lines {
		method, path, body := line[1], line[2], line[3]
		if method == "" {
			method = http.MethodGet
		}
		a := api.ask(method, path, body)
		if a.resp.StatusCode != http.StatusOK || strings.Contains(a.body, `"error"`) {
			t.Errorf("%s %s %s is answered with %s %s", method, path, body, a.resp.Status, a.body)
		}
	}
}
