package docs_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

const gatewayWorker = "gatewayworker.md"

// theirs are the names of Workerman 5.2.2, GatewayWorker and GatewayClient that have to do
// with clients, by the section that has to have them.
var theirs = map[string]string{
	"## Sending":      "sendToAll sendToClient sendToCurrentClient sendToUid sendToGroup raw",
	"## Closing":      "closeClient closeCurrentClient destoryClient destoryCurrentClient",
	"## Who is there": "isOnline isUidOnline isUidsOnline",
	"## Users": "bindUid unbindUid getClientIdByUid batchGetClientIdByUid getUidByClientId getAllUidList " +
		"getAllUidCount",
	"## Groups": "joinGroup leaveGroup ungroup getClientIdListByGroup getClientIdCountByGroup getClientCountByGroup " +
		"batchGetClientIdCountByGroup getUidListByGroup getUidCountByGroup getClientSessionsByGroup getClientInfoByGroup " +
		"getAllGroupIdList getAllGroupUidList getAllGroupUidCount getAllGroupClientIdList getAllGroupClientIdCount",
	"## Lists of all":        "getAllClientIdList getAllClientIdCount getAllClientCount getAllClientSessions getAllClientInfo",
	"## Sessions":            "setSession updateSession getSession",
	"## From other programs": "registerAddress secretKey connectTimeout persistentConnection",
	"## Events": "onWorkerStart onConnect onWebSocketConnect onMessage onClose onWorkerStop get cookie server " +
		"REMOTE_ADDR REMOTE_PORT GATEWAY_ADDR GATEWAY_PORT GATEWAY_CLIENT_ID",
	"## Session and client id": "_SESSION client_id",
	"## Settings of GatewayWorker": "lanIp innerTcpWorkerListen startPort lanPort registerAddress pingInterval pingNotResponseLimit " +
		"pingData secretKey router selectLoadBalancingMode sendToWorkerBufferSize sendToClientBufferSize " +
		"sendToGatewayBufferSize protocolAccelerate onBusinessWorkerConnected onBusinessWorkerClose reloadable eventHandler",
	"## Callbacks of a Worker": "onWorkerStart onConnect onWebSocketConnect onWebSocketConnected onWebSocketPing onWebSocketPong " +
		"onMessage onWebSocketClose onClose onError onBufferFull onBufferDrain onWorkerStop onWorkerReload onMasterReload " +
		"onMasterStop onWorkerExit",
	"## A connection": "maxSendBufferSize defaultMaxSendBufferSize maxPackageSize defaultMaxPackageSize READ_BUFFER_SIZE " +
		"TCP_KEEPALIVE_INTERVAL lingerTimeout websocketType context id worker protocol transport bytesRead bytesWritten " +
		"headers websocketClientProtocol websocketOrigin send close end destroy pauseRecv resumeRecv pipe connections " +
		"getRemoteIp getRemotePort getRemoteAddress getLocalIp getLocalPort getLocalAddress isIpV4 isIpV6 " +
		"getSendBufferQueueSize getRecvBufferQueueSize bufferIsEmpty getStatus getSocket jsonSerialize",
	"## Settings of a Worker": "count name user group reloadable reusePort transport protocol eventLoop stopTimeout backlog " +
		"logFile logFileMaxSize pidFile statusFile stdoutFile",
	"## Commands and timers": "start stop restart reload status connections add repeat delay del delAll sleep",
}

// Who looks up a name of the old program finds it, and is told what shows the answer; or
// why there is none.
func TestEveryNameOfGatewayWorkerHasARow(t *testing.T) {
	for heading, list := range theirs {
		t.Run(strings.TrimPrefix(heading, "## "), func(t *testing.T) {
			rows := table(t, gatewayWorker, heading)
			for name := range strings.FieldsSeq(list) {
				word := regexp.MustCompile(`(^|\W)` + name + `(\W|$)`)
				if !slices.ContainsFunc(rows, func(r []string) bool { return word.MatchString(strings.Join(spans(r[0]), " ")) }) {
					t.Errorf("%s has no row", name)
				}
			}
			for _, r := range rows {
				last := r[len(r)-1]
				switch {
				case len(spans(last)) > 0:
					checkTests(t, gatewayWorker, last)
				case last == "Caddy's" && r[1] != "": // and not ours to test
				case last != "" || !strings.HasPrefix(r[1], "none"):
					t.Errorf("%s: no test shows it", r[0])
				}
				// "none: there are no raw sockets", not "none"
				if why, none := strings.CutPrefix(r[1], "none"); none && len(strings.Fields(why)) < 3 {
					t.Errorf("%s: why is there none?", r[0])
				}
			}
		})
	}
}

// A call in a table is copied: each is one that the push API takes.
func TestCallsInTheTablesAreTaken(t *testing.T) {
	g, err := gateway.New(gateway.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Shutdown(context.WithoutCancel(t.Context())) })
	api := httpapi.New(g, httpapi.Options{})
	calls := regexp.MustCompile("`(GET|POST|PUT|PATCH) (/[^`]*)`(?: `(\\{[^`]*\\})`)?")
	found := 0
	for _, m := range calls.FindAllStringSubmatch(read(t, gatewayWorker), -1) {
		found++
		method, path, body := m[1], m[2], m[3]
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		want := http.StatusOK
		switch {
		case path == "/clients/{id}":
			want = http.StatusNotFound // nobody is connected
		case method != http.MethodGet && body == "":
			r.Method, want = http.MethodOptions, http.StatusNoContent
		case body != "":
			r.Header.Set("Content-Type", "application/json")
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		if w.Code != want || want == http.StatusNotFound && !strings.Contains(w.Body.String(), httpapi.CodeUnknownClient) ||
			want == http.StatusNoContent && !strings.Contains(w.Header().Get("Allow"), method) {
			t.Errorf("%s is answered with %d %s", m[0], w.Code, w.Body)
		}
	}
	if found < 40 {
		t.Errorf("%d calls found", found)
	}
}

// So is Go: each function and method exists.
func TestGoInTheTablesExists(t *testing.T) {
	page := read(t, gatewayWorker)
	found := 0
	for prefix, of := range map[string]reflect.Type{
		`\bg\.`: reflect.TypeFor[*gateway.Gateway](), `\bc\.`: reflect.TypeFor[*gateway.Client](),
		`\bc\.Session\(\)\.`: reflect.TypeFor[*gateway.Session](),
	} {
		for _, m := range regexp.MustCompile(prefix+`([A-Z]\w*)`).FindAllStringSubmatch(page, -1) {
			found++
			if _, ok := of.MethodByName(m[1]); !ok {
				t.Errorf("%s: %s has no such method", m[0], of)
			}
		}
	}
	exported := exportedBy(t, "../gateway")
	for _, m := range regexp.MustCompile(`\bgateway\.([A-Z]\w*)`).FindAllStringSubmatch(page, -1) {
		found++
		if !exported[m[1]] {
			t.Errorf("%s does not exist", m[0])
		}
	}
	if found < 80 {
		t.Errorf("%d names found", found)
	}
}

// exportedBy returns the exported names of a package, without methods.
func exportedBy(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				names[d.Name.Name] = d.Recv == nil || names[d.Name.Name]
			case *ast.GenDecl:
				ast.Inspect(d, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.TypeSpec:
						names[n.Name.Name] = true
					case *ast.ValueSpec:
						for _, name := range n.Names {
							names[name.Name] = true
						}
					}
					return true
				})
			}
		}
	}
	return names
}

// Options in the pages are those that exist, with arguments that they take.
func TestOptionsInTheTablesAreTaken(t *testing.T) {
	for _, heading := range []string{"## Users", "## Groups", "## Sessions"} {
		for _, r := range table(t, gatewayWorker, heading) {
			for _, line := range spans(r[2]) {
				if _, err := adapt("http://a.example {\nwebsocket {\n" + line + "\n}\n}"); err != nil {
					t.Errorf("%s: %v", line, err)
				}
			}
		}
	}
}
