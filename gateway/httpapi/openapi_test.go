package httpapi_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.yaml.in/yaml/v3"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// node is an object of the document.
type node = map[string]any

var document = sync.OnceValues(func() (node, error) {
	var d node
	err := yaml.Unmarshal([]byte(httpapi.OpenAPI), &d)
	return d, err
})

// at returns what is at a path of names in the document, references followed, or
// nil.
func at(t testing.TB, in any, names ...string) any {
	t.Helper()
	for i := 0; ; i++ {
		object, _ := in.(node)
		if ref, ok := object["$ref"].(string); ok {
			d, err := document()
			if err != nil {
				t.Fatal(err)
			}
			in = at(t, d, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
			object, _ = in.(node)
			if object == nil {
				t.Fatalf("%s refers to nothing", ref)
			}
		}
		if i == len(names) {
			return in
		}
		in = object[names[i]]
	}
}

func under(t testing.TB, in any, names ...string) node {
	t.Helper()
	object, _ := at(t, in, names...).(node)
	return object
}

// operation is a call as it is documented.
type operation struct {
	method, path string
	node
}

func operations(t testing.TB) []operation {
	t.Helper()
	d, err := document()
	if err != nil {
		t.Fatal(err)
	}
	var all []operation
	paths := under(t, d, "paths")
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := under(t, paths, path)
		for _, method := range slices.Sorted(maps.Keys(item)) {
			all = append(all, operation{strings.ToUpper(method), path, under(t, item, method)})
		}
	}
	return all
}

// documented tells whether a call is said to have this status.
func documented(t testing.TB, method, path string, status int) bool {
	t.Helper()
	if strings.HasPrefix(path, "/clients/") {
		path = "/clients/{id}"
	}
	for _, op := range operations(t) {
		if op.path == path && op.method == method {
			return at(t, op.node, "responses", strconv.Itoa(status)) != nil
		}
	}
	return false
}

// violations says where a value is not as its schema, which closes all objects that
// it describes.
func violations(t testing.TB, v any, schema node, where string) (all []string) {
	t.Helper()
	schema = under(t, schema)
	if alternatives, ok := schema["oneOf"].([]any); ok {
		for _, alternative := range alternatives {
			found := violations(t, v, under(t, alternative), where)
			if len(found) == 0 {
				return nil
			}
			all = append(all, found...)
		}
		return all
	}
	if want, ok := schema["type"].(string); ok && typeOf(v) != want && (want != "number" || typeOf(v) != "integer") {
		return []string{fmt.Sprintf("%s is %v, want %s", where, v, want)}
	}
	if allowed, ok := schema["enum"].([]any); ok && !slices.Contains(allowed, v) {
		all = append(all, fmt.Sprintf("%s is %v, want one of %v", where, v, allowed))
	}
	switch v := v.(type) {
	case map[string]any:
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, ok := v[name.(string)]; !ok {
				all = append(all, fmt.Sprintf("%s has no %s", where, name))
			}
		}
		for name, inner := range v {
			if s := under(t, schema, "properties", name); s != nil {
				all = append(all, violations(t, inner, s, where+"."+name)...)
			} else if s := under(t, schema, "additionalProperties"); s != nil {
				all = append(all, violations(t, inner, s, where+"."+name)...)
			} else if schema["additionalProperties"] == false {
				all = append(all, fmt.Sprintf("%s.%s is not documented", where, name))
			}
		}
	case []any:
		for i, inner := range v {
			all = append(all, violations(t, inner, under(t, schema, "items"), fmt.Sprintf("%s[%d]", where, i))...)
		}
	}
	return all
}

func typeOf(v any) string {
	switch v := v.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	case int:
		return "integer"
	case float64:
		if v == math.Trunc(v) {
			return "integer"
		}
		return "number"
	}
	return fmt.Sprintf("%T", v)
}

// wantSchema fails unless JSON is as its schema says.
func wantSchema(t testing.TB, body string, schema node, where string) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Errorf("%s: %q: %v", where, body, err)
		return
	}
	if found := violations(t, v, schema, "it"); len(found) > 0 {
		t.Errorf("%s: %s: %s", where, body, strings.Join(found, "; "))
	}
}

// What the description leaves out nobody finds, and what it makes up fails.
func TestDescriptionHasExactlyTheCallsThatExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Operator: true})
		var described []string
		for _, op := range operations(t) {
			described = append(described, op.method+" "+op.path)
		}
		exist := regexp.MustCompile(`[A-Z]+ /[^, "]+`).FindAllString(tn.ask(http.MethodGet, "/", "").body, -1)
		slices.Sort(described)
		slices.Sort(exist)
		if !slices.Equal(described, exist) {
			t.Errorf("described are\n%q, and there are\n%q", described, exist)
		}
		for _, line := range exist { // and each does what it is there for
			method, path, _ := strings.Cut(line, " ")
			if path == "/tail" {
				continue // it has tests of its own
			}
			if got := tn.ask(method, path, "{}"); got.status == http.StatusMethodNotAllowed || strings.Contains(got.body, `"code":"unknown_call"`) {
				t.Errorf("%s answers %d %s", line, got.status, got.body)
			}
			if path == "/drain" {
				tn = newTown(t, httpapi.Options{Operator: true})
			}
		}
		if got := tn.ask(http.MethodGet, "/openapi.yaml", ""); got.body != httpapi.OpenAPI || got.status != http.StatusOK || got.header.Get("Content-Type") != "application/yaml" {
			t.Errorf("GET /openapi.yaml answers %d %.50q", got.status, got.body)
		}
	})
}

// Who copies an example gets an answer, and one that is as described.
func TestExamplesOfTheDescriptionWork(t *testing.T) {
	for _, op := range operations(t) {
		if op.path == "/tail" {
			continue
		}
		requests := []string{""}
		content := under(t, op.node, "requestBody", "content", "application/json")
		for name := range under(t, content, "examples") {
			value := at(t, content, "examples", name, "value")
			body, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			if found := violations(t, value, under(t, content, "schema"), "it"); len(found) > 0 {
				t.Errorf("%s %s: example %s: %s", op.method, op.path, name, found)
			}
			requests = append(requests, string(body))
		}
		if content != nil {
			requests = requests[1:]
			if len(requests) == 0 {
				t.Errorf("%s %s has a body and no example", op.method, op.path)
			}
		}
		for _, body := range requests {
			synctest.Test(t, func(t *testing.T) {
				tn := newTown(t, httpapi.Options{Operator: true})
				synctest.Wait()
				example := "k3xq7a2b-4hz2vwq5m7cuxr3ynt6jdk2pba"
				path := strings.ReplaceAll(op.path, "{id}", "{ann}") + queryOf(t, op)
				got := tn.ask(op.method, path, strings.ReplaceAll(body, example, "{ann}"))
				if got.status != http.StatusOK {
					t.Errorf("%s %s %s: %d %s", op.method, path, body, got.status, got.body)
					return
				}
				if schema := under(t, op.node, "responses", "200", "content", "application/json", "schema"); schema != nil {
					wantSchema(t, got.body, schema, op.method+" "+path)
				}
				if strings.Contains(fmt.Sprint(op.node["tags"]), "commands") && strings.Contains(got.body, `"clients":0`) {
					t.Errorf("%s %s %s reached nobody: %s", op.method, path, body, got.body)
				}
			})
		}
	}
}

// queryOf returns the examples of the query parameters.
func queryOf(t testing.TB, op operation) string {
	t.Helper()
	values := url.Values{}
	params, _ := op.node["parameters"].([]any)
	for _, p := range params {
		p := under(t, p)
		if p["in"] != "query" || p["example"] == nil {
			continue
		}
		if list, ok := p["example"].([]any); ok {
			for _, v := range list {
				values.Add(p["name"].(string), fmt.Sprint(v))
			}
			continue
		}
		values.Add(p["name"].(string), fmt.Sprint(p["example"]))
	}
	if len(values) == 0 {
		return ""
	}
	return "?" + values.Encode()
}

// The parameters of a call are those that are described.
func TestDescriptionHasExactlyTheParametersThatExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Operator: true})
		for _, op := range operations(t) {
			var described []string
			params, _ := op.node["parameters"].([]any)
			for _, p := range params {
				if p := under(t, p); p["in"] == "query" {
					described = append(described, p["name"].(string))
				}
			}
			got := tn.ask(op.method, op.path+"?nonsense=1", "").body
			_, list, _ := strings.Cut(got, "allowed are ")
			list, _, _ = strings.Cut(list, `"`)
			exist := strings.Split(strings.TrimSpace(list), ", ")
			if list == "none" {
				exist = nil
			}
			slices.Sort(described)
			slices.Sort(exist)
			if !slices.Equal(described, exist) {
				t.Errorf("%s %s: described are %q, and there are %q", op.method, op.path, described, exist)
			}
		}
	})
}

// Each schema has the fields of the Go type, no more and no fewer.
func TestSchemasHaveTheFieldsOfTheTypes(t *testing.T) {
	types := map[string]reflect.Type{
		"Target": reflect.TypeFor[gateway.Target](), "Except": reflect.TypeFor[gateway.Except](),
		"Send": reflect.TypeFor[gateway.SendCommand](), "Close": reflect.TypeFor[gateway.CloseCommand](),
		"Groups": reflect.TypeFor[gateway.GroupsCommand](), "Bind": reflect.TypeFor[gateway.BindCommand](),
		"Unbind": reflect.TypeFor[gateway.UnbindCommand](), "Session": reflect.TypeFor[gateway.SessionCommand](),
		"Command": reflect.TypeFor[gateway.Command](), "Result": reflect.TypeFor[httpapi.Result](),
		"Results": reflect.TypeFor[httpapi.Results](), "Error": reflect.TypeFor[httpapi.Error](),
		"ClientInfo": reflect.TypeFor[gateway.ClientInfo](), "ClientList": reflect.TypeFor[gateway.ClientList](),
		"NameList": reflect.TypeFor[gateway.NameList](), "NameCount": reflect.TypeFor[gateway.NameCount](),
		"Stats": reflect.TypeFor[gateway.Stats](), "ClusterStats": reflect.TypeFor[gateway.ClusterStats](), "EndpointStats": reflect.TypeFor[gateway.EndpointStats](),
		"CloseCount": reflect.TypeFor[gateway.CloseCount](), "Durations": reflect.TypeFor[gateway.Durations](),
		"DurationBucket": reflect.TypeFor[gateway.DurationBucket](), "Event": reflect.TypeFor[gateway.Event](),
		"Missed": reflect.TypeFor[httpapi.Missed](), "Heartbeat": reflect.TypeFor[httpapi.Heartbeat](), "Heard": reflect.TypeFor[httpapi.Heard](),
		"State": reflect.TypeFor[httpapi.State](), "NodeStates": reflect.TypeFor[httpapi.NodeStates](), "NodeState": reflect.TypeFor[httpapi.NodeState](),
		"Nodes": reflect.TypeFor[httpapi.Nodes](), "Node": reflect.TypeFor[httpapi.Node](),
	}
	d, err := document()
	if err != nil {
		t.Fatal(err)
	}
	for name := range under(t, d, "components", "schemas") {
		of, ok := types[name]
		if !ok {
			if !slices.Contains([]string{"Refusal", "Batch", "Drain", "TailLine"}, name) { // these have no exported type
				t.Errorf("no type is named for schema %s", name)
			}
			continue
		}
		properties := slices.Sorted(maps.Keys(under(t, d, "components", "schemas", name, "properties")))
		if fields := jsonFields(of); !slices.Equal(properties, fields) {
			t.Errorf("schema %s has %q, the type %q", name, properties, fields)
		}
	}
}

func jsonFields(of reflect.Type) (fields []string) {
	for _, f := range reflect.VisibleFields(of) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields
}

// Programs switch on codes: the list is complete, and nothing on it is made up.
func TestDescriptionHasExactlyTheCodesThatExist(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "answer.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var exist []string
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Code") {
			code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			exist = append(exist, code)
		}
		return true
	})
	d, err := document()
	if err != nil {
		t.Fatal(err)
	}
	var described []string
	for _, code := range at(t, d, "components", "schemas", "Error", "properties", "code", "enum").([]any) {
		described = append(described, code.(string))
	}
	slices.Sort(described)
	slices.Sort(exist)
	if !slices.Equal(described, exist) || len(exist) < 10 {
		t.Errorf("described are %q, and there are %q", described, exist)
	}
}

// Examples of answers are as their schemas, like the answers themselves.
func TestExamplesOfAnswersAreAsTheirSchemas(t *testing.T) {
	checked := 0
	for _, op := range operations(t) {
		for status := range under(t, op.node, "responses") {
			for media, content := range under(t, op.node, "responses", status, "content") {
				schema := under(t, content, "schema")
				examples := []any{at(t, content, "example")}
				for name := range under(t, content, "examples") {
					examples = append(examples, at(t, content, "examples", name, "value"))
				}
				for _, example := range examples {
					if example == nil {
						continue
					}
					checked++
					if found := violations(t, example, schema, "it"); len(found) > 0 {
						t.Errorf("%s %s %s %s: %s", op.method, op.path, status, media, found)
					}
				}
			}
		}
	}
	if checked < 30 {
		t.Errorf("only %d examples were found", checked)
	}
}
