package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// checkTests fails for tests that do not exist, and for a cell without any.
func checkTests(t *testing.T, page, cell string) {
	t.Helper()
	names := spans(cell)
	if len(names) == 0 {
		t.Errorf("%s: no test in %q", page, cell)
	}
	for _, name := range names {
		test, sub, _ := strings.Cut(name, "/")
		words, ok := testsOf(t)[test]
		if !ok || sub != "" && !words[sub] {
			t.Errorf("%s: there is no test %s", page, name)
		}
	}
}

// testsOf returns the tests of the repository, each with the strings in it, among which
// are the names of its subtests.
func testsOf(t *testing.T) map[string]map[string]bool {
	t.Helper()
	tests, err := allTests()
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

var allTests = sync.OnceValues(func() (map[string]map[string]bool, error) {
	tests := make(map[string]map[string]bool)
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || len(d.Name()) > 2 && d.Name()[0] == '.') {
			return fs.SkipDir
		}
		if !strings.HasSuffix(file, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			test, ok := d.(*ast.FuncDecl)
			if !ok || test.Recv != nil || !strings.HasPrefix(test.Name.Name, "Test") {
				continue
			}
			words := tests[test.Name.Name]
			if words == nil {
				words = make(map[string]bool)
				tests[test.Name.Name] = words
			}
			ast.Inspect(test, func(n ast.Node) bool {
				if s, ok := n.(*ast.BasicLit); ok && s.Kind == token.STRING {
					if text, err := strconv.Unquote(s.Value); err == nil {
						words[text] = true
					}
				}
				return true
			})
		}
		return nil
	})
	return tests, err
})
