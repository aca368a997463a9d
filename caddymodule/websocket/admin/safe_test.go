package admin_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket/admin"
)

// unsafe has what a client could write into an operator's terminal: escape
// sequences in 7 and in 8 bits, a line of its own, text that runs backwards.
const unsafe = "\x1b[2J\u009b31m\r\nroot\u202e\u2028\x7f\x00"

// A user's name must not clear the operator's screen, and must still be readable in
// any language.
func TestWhatIsPrintedCannotSteerATerminal(t *testing.T) {
	for text, want := range map[string]string{
		"tom":                 "tom",
		"张三 😀 é \u00a0\u3000": "张三 😀 é \u00a0\u3000",
		`{"a":"x\"y\\z"}`:     `{"a":"x\"y\\z"}`,
		"a\tb\nc":             `a\tb\nc`,
		"\xff\xc3":            `\xff\xc3`,
		"\ufffd":              "\ufffd",
		unsafe:                `\x1b[2J\u009b31m\r\nroot\u202e\u2028\x7f\x00`,
		"\U000e0041":          `\U000e0041`,
	} {
		if got := admin.Safe(text); got != want {
			t.Errorf("%q is printed as %q, want %q", text, got, want)
		}
	}
}

// JSON goes to a terminal as often as to a program, for which it must mean the same.
func TestJSONThatIsPrintedMeansTheSame(t *testing.T) {
	for _, text := range []string{"tom", "张三 😀", unsafe, "\U000e0041 <&>", `\"`} {
		encoded, err := json.Marshal(map[string]string{text: text})
		if err != nil {
			t.Fatal(err)
		}
		got := admin.SafeJSON(encoded)
		if strings.ContainsAny(string(got), "\x1b\u009b\u202e\u2028\x7f\r\n\U000e0041") {
			t.Errorf("%q is printed as %q", text, got)
		}
		var back map[string]string
		if err := json.Unmarshal(got, &back); err != nil || back[text] != text {
			t.Errorf("%q is printed as %q, which means %q (%v)", text, got, back, err)
		}
	}
	if got := string(admin.SafeJSON([]byte("{\n\t\"a\": \"\xff\"}"))); got != `{  "a": "\ufffd"}` {
		t.Errorf("on one line it is %q", got)
	}
}

// "Since when" is what one looks for when somebody says that he was thrown out.
func TestDurationsAreWrittenInTwoUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59*time.Second + 999*time.Millisecond: "59s",
		time.Minute: "1m00s", 61 * time.Second: "1m01s", time.Hour - 1: "59m59s",
		time.Hour: "1h00m", 25*time.Hour + 59*time.Minute: "1d01h", 1000 * time.Hour: "41d16h",
	} {
		if got := admin.Lasting(d); got != want {
			t.Errorf("%s is written %s, want %s", d, got, want)
		}
	}
}
