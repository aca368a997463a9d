package gateway

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestSessionKeepsJSONValues(t *testing.T) {
	var s Session
	for key, v := range map[string]any{"text": "tom", "number": 7, "nested": map[string]int{"a": 1}, "nothing": nil} {
		if err := s.Set(key, v); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Get("number"); got != 7.0 {
		t.Errorf("number is %v (%T), want 7 as float64", got, got)
	}
	if v, ok := s.Lookup("nothing"); v != nil || !ok {
		t.Errorf("null is %v, %v, want nil and true", v, ok)
	}
	if _, ok := s.Lookup("missing"); ok {
		t.Error("a missing entry is found")
	}
	for key, want := range map[string]string{"text": "tom", "number": "7", "nested": `{"a":1}`, "nothing": "null", "missing": ""} {
		if got := s.Text(key); got != want {
			t.Errorf("%s as text is %q, want %q", key, got, want)
		}
	}
	var nested struct{ A int }
	if ok, err := s.Decode("nested", &nested); !ok || err != nil || nested.A != 1 {
		t.Errorf("decoded %+v, %v, %v", nested, ok, err)
	}
	s.Delete("nested")
	if raw, err := json.Marshal(&s); err != nil || string(raw) != `{"nothing":null,"number":7,"text":"tom"}` {
		t.Errorf("session is %s (%v)", raw, err)
	}
	if err := s.Set("f", func() {}); err == nil {
		t.Error("a function is taken for a JSON value")
	}
}

// The cases of RFC 7396 appendix A, as entries of the session.
func TestSessionUpdateIsAMergePatch(t *testing.T) {
	for _, tt := range []struct{ original, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		var s Session
		var original, patch map[string]any
		for text, into := range map[string]*map[string]any{tt.original: &original, tt.patch: &patch} {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Replace(original); err != nil {
			t.Fatal(err)
		}
		if err := s.Update(patch); err != nil {
			t.Errorf("%s patched with %s: %v", tt.original, tt.patch, err)
		}
		if got, _ := json.Marshal(&s); string(got) != tt.want {
			t.Errorf("%s patched with %s is %s, want %s", tt.original, tt.patch, got, tt.want)
		}
	}
}

func TestSessionIsBounded(t *testing.T) {
	var s Session
	if err := s.Set("a", "small"); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", MaxSessionSize)
	if s.Set("b", big) == nil || s.Update(map[string]any{"b": big}) == nil || s.Replace(map[string]any{"b": big}) == nil {
		t.Error("a session that is too large is taken")
	}
	if got, _ := json.Marshal(&s); string(got) != `{"a":"small"}` {
		t.Errorf("a refused change left %s", got)
	}
}

// What is stored must be readable by everybody, and cost nobody a second.
func TestSessionRefusesWhatCannotBeRead(t *testing.T) {
	deep := func(levels int) json.RawMessage {
		return json.RawMessage(strings.Repeat(`{"a":`, levels) + "1" + strings.Repeat("}", levels))
	}
	for name, value := range map[string]any{
		"number beyond float64": json.RawMessage("1e400"),
		"33 levels":             deep(maxSessionDepth + 1),
		"lists":                 json.RawMessage(strings.Repeat("[", maxSessionDepth+1) + strings.Repeat("]", maxSessionDepth+1)),
	} {
		var s Session
		if s.Set("a", value) == nil || s.Update(map[string]any{"a": value}) == nil || s.Replace(map[string]any{"a": value}) == nil {
			t.Errorf("%s is taken", name)
		}
		if len(s.All()) != 0 {
			t.Errorf("%s left %v", name, s.All())
		}
	}
	var s Session
	for key, value := range map[string]any{"deep": deep(maxSessionDepth), "text": strings.Repeat(`[{\"`, 99)} {
		if err := s.Set(key, value); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}
