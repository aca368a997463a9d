package websocket_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// described returns type and labels of each metric of ours, as one text.
func (s *server) described(t *testing.T) map[string]string {
	t.Helper()
	types, labels := make(map[string]string), make(map[string]map[string]bool)
	family := func(series string) string {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if name, cut := strings.CutSuffix(series, suffix); cut && types[name] == "histogram" {
				return name
			}
		}
		return series
	}
	for line := range strings.Lines(s.scrapeText(t)) {
		words := strings.Fields(line)
		if words[0] == "#" {
			if words[1] == "TYPE" {
				types[words[2]], labels[words[2]] = words[3], make(map[string]bool)
			}
			continue
		}
		name, rest, _ := strings.Cut(line, "{")
		for _, m := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(rest, -1) {
			if m[1] != "le" {
				labels[family(name)][m[1]] = true
			}
		}
	}
	all := make(map[string]string)
	for name, kind := range types {
		all[name] = kind + " " + strings.Join(slices.Sorted(maps.Keys(labels[name])), " ")
	}
	return all
}

// promtool and others who read many /metrics expect the same conventions everywhere.
func TestMetricsFollowPrometheusConventions(t *testing.T) {
	s := startWith(t, clustered("metrics"), "HTTP {\n websocket /ws {\n logic echo\n}\n}\n")
	problems, err := promlint.New(strings.NewReader(s.scrapeText(t))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if n := len(s.described(t)); n != 20 {
		t.Errorf("%d metrics, want 20", n)
	}
}

// A dashboard or an alert on a metric that does not exist shows nothing, and nobody
// notices.
func TestDocumentationNamesTheMetricsThatExist(t *testing.T) {
	s := startWith(t, clustered("metrics"), "HTTP {\n websocket /ws {\n logic echo\n}\n}\n")
	exist := s.described(t)
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	table := make(map[string]string)
	row := regexp.MustCompile("(?m)^\\| `(caddy_websocket_[a-z_]+)` \\| ([a-z]+) \\| ([^|]+) \\|")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		labels := regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(m[3], -1)
		var names []string
		for _, l := range labels {
			names = append(names, l[1])
		}
		slices.Sort(names)
		table[m[1]] = m[2] + " " + strings.Join(names, " ")
	}
	if !maps.Equal(table, exist) {
		t.Errorf("the table of docs/metrics.md has\n%v\nbut there are\n%v", table, exist)
	}
	checkNames(t, "docs/metrics.md", string(text), exist)
}

// checkNames fails the test if a text names a metric or a label that does not exist.
func checkNames(t *testing.T, where, text string, exist map[string]string) (names int) {
	t.Helper()
	expression := regexp.MustCompile(`(caddy_websocket_[a-z_]+)(?:\{([^}]*)\})?`)
	for _, m := range expression.FindAllStringSubmatch(text, -1) {
		names++
		name := m[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, cut := strings.CutSuffix(name, suffix); cut && strings.HasPrefix(exist[base], "histogram") {
				name = base
			}
		}
		described, ok := exist[name]
		if !ok {
			t.Errorf("%s names %s, which does not exist", where, m[1])
			continue
		}
		for _, l := range regexp.MustCompile(`([a-z_]+)\s*(?:=|!=|=~|!~)`).FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(strings.Fields(described)[1:], l[1]) && l[1] != "instance" && l[1] != "job" {
				t.Errorf("%s: %s has no label %s", where, m[0], l[1])
			}
		}
	}
	return names
}

func TestGrafanaDashboardNamesTheMetricsThatExist(t *testing.T) {
	s := startWith(t, clustered("metrics"), "HTTP {\n websocket /ws {\n logic echo\n}\n}\n")
	exist := s.described(t)
	text, err := os.ReadFile("../../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	type target struct {
		Expr string `json:"expr"`
	}
	type panel struct {
		Title      string                       `json:"title"`
		Type       string                       `json:"type"`
		ID         int                          `json:"id"`
		Datasource struct{ Type, UID string }   `json:"datasource"`
		GridPos    struct{ H, W, X, Y float64 } `json:"gridPos"`
		Targets    []target                     `json:"targets"`
	}
	var dashboard struct {
		Title         string  `json:"title"`
		SchemaVersion int     `json:"schemaVersion"`
		Panels        []panel `json:"panels"`
		Templating    struct {
			List []struct {
				Name       string `json:"name"`
				Type       string `json:"type"`
				Definition string `json:"definition"`
			} `json:"list"`
		} `json:"templating"`
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := make(map[string]bool)
	for _, v := range dashboard.Templating.List {
		variables[v.Name] = true
		if v.Type == "query" {
			checkNames(t, "variable "+v.Name, v.Definition, exist)
		}
	}
	ids, shown := make(map[int]bool), make(map[string]bool)
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("panel %q has the id of another", p.Title)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if p.Datasource.UID != "${datasource}" || p.Title == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q of %q: it needs the variable datasource, targets and a place", p.Title, p.Datasource.UID)
		}
		for _, target := range p.Targets {
			if checkNames(t, "panel "+p.Title, target.Expr, exist) == 0 {
				t.Errorf("panel %q: %q names no metric of ours", p.Title, target.Expr)
			}
			for _, v := range regexp.MustCompile(`\$([a-z]+)`).FindAllStringSubmatch(target.Expr, -1) {
				if !variables[v[1]] {
					t.Errorf("panel %q uses $%s, which is no variable", p.Title, v[1])
				}
			}
			for name := range exist {
				shown[name] = shown[name] || strings.Contains(target.Expr, name)
			}
		}
	}
	for name := range exist {
		if !shown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
	if dashboard.SchemaVersion < 39 || !variables["datasource"] || bytes.Contains(text, []byte("\t")) {
		t.Error("want the schema of Grafana 11, a variable datasource and no tabs")
	}
}
