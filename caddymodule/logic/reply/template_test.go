package reply

import (
	"strings"
	"testing"
)

// The parser never loses text, and what it takes for a placeholder has a value.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		"", "hello", "{ws.user}", "{ws.json.session.a.b}", "{{ws.message}}", "{ws.user", "{}", "{http.vars.client_ip}",
		`{"a":{ws.json.user},"b":{}}`, "{ws.session.}", "}{", "{{{{.}}}}", "{\xff.}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, template string) {
		parts, err := parse(template)
		if err != nil {
			if !strings.Contains(template, "{") {
				t.Errorf("%q has no placeholder: %v", template, err)
			}
			return
		}
		rest := template
		for _, p := range parts {
			if p.value == nil {
				after, ok := strings.CutPrefix(rest, p.text)
				if !ok || p.text == "" {
					t.Fatalf("%q: text %q is not at %q", template, p.text, rest)
				}
				rest = after
				continue
			}
			placeholder, after, ok := strings.Cut(rest, "}")
			if !ok || !strings.HasPrefix(placeholder, "{ws.") || strings.HasPrefix(placeholder, "{ws.json.") != p.json {
				t.Fatalf("%q: no placeholder at %q", template, rest)
			}
			rest = after
		}
		if rest != "" {
			t.Errorf("%q: %q is lost", template, rest)
		}
	})
}
