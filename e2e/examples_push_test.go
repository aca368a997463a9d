package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

const pushToken = "a-token-of-the-tests-0123456789"

// pushCaddy runs examples/push. It returns the site of the clients and the
// environment of a program that pushes.
func pushCaddy(t *testing.T) (caddy *e2etest.Caddy, site string, env []string) {
	t.Helper()
	port := e2etest.ReservePort(t)
	caddy, site = startProgram(t, e2etest.Binary(t), exampleFile(t, "push/Caddyfile"), fmt.Sprint("PUSH_PORT=", port), "PUSH_TOKEN="+pushToken)
	return caddy, site, append(os.Environ(), fmt.Sprint("PUSH_URL=http://127.0.0.1:", port), "PUSH_TOKEN="+pushToken, "no_proxy=127.0.0.1", "NO_PROXY=127.0.0.1")
}

// runProgram runs a program in the root of the repository.
func runProgram(t *testing.T, env []string, program string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = e2etest.RepoRoot(t), env
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// phpWithCurl returns the path of a PHP that has curl.
func phpWithCurl(t *testing.T) string {
	t.Helper()
	path := e2etest.Tool(t, "php")
	if out, _, err := runProgram(t, os.Environ(), path, "-m"); err != nil || !strings.Contains(out, "\ncurl\n") {
		e2etest.Missing(t, "PHP's extension curl")
	}
	return path
}

// What people copy into their shops and cron jobs has to work as it stands, with
// whatever text, and to fail loudly with a wrong token.
func TestPushExamplesReachAUserFromAnotherProgram(t *testing.T) {
	caddy, site, env := pushCaddy(t)
	for _, tt := range []struct {
		name    string
		program func(t *testing.T) []string
	}{
		{"curl", func(t *testing.T) []string {
			e2etest.Tool(t, "curl")
			return []string{"examples/push/push.sh"}
		}},
		{"PHP", func(t *testing.T) []string { return []string{phpWithCurl(t), "examples/push/push.php"} }},
		{"Node", func(t *testing.T) []string { return []string{e2etest.Tool(t, "node"), "examples/push/push.mjs"} }},
		{"Python", func(t *testing.T) []string {
			return []string{e2etest.Tool(t, "python3", "python"), "examples/push/push.py"}
		}},
		{"Go", func(t *testing.T) []string { return []string{e2etest.Program(t, "./examples/push")} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			program := tt.program(t)
			push := func(env []string, user, text string) (string, string, error) {
				return runProgram(t, env, program[0], append(program[1:], user, text)...)
			}
			wantClients := func(n int, user, text string) {
				t.Helper()
				out, errs, err := push(env, user, text)
				var answer struct{ Clients *int }
				if bad := json.Unmarshal([]byte(out), &answer); err != nil || bad != nil || answer.Clients == nil || *answer.Clients != n {
					t.Errorf("pushing to %s: %v, it prints %q %q, want %d clients", user, err, out, errs, n)
				}
			}
			user, other := "tom-"+tt.name, "eve-"+tt.name
			tom := caddy.Dial("wss://"+site+"/ws?user="+user, nil)
			again := caddy.Dial("wss://"+site+"/ws?user="+user, nil)
			eve := caddy.Dial("wss://"+site+"/ws?user="+other, nil)

			const text = `he said "hi" \ 'there' $HOME & <b> %s 你好`
			wantClients(2, user, text)
			for _, got := range []string{next(tom), next(again)} {
				if got != text {
					t.Errorf("tom received %q, want %q", got, text)
				}
			}
			wantClients(0, `"nobody"\`, "lost")

			wrong := append(env, "PUSH_TOKEN=another-token-0123456789")
			out, errs, err := push(wrong, other, "from a stranger")
			if err == nil || !strings.Contains(out+errs, "401") && !strings.Contains(out+errs, "the token is wrong") {
				t.Errorf("with a wrong token: %v, it prints %q %q, want a failure that says why", err, out, errs)
			}
			wantClients(1, other, "end")
			if got := next(eve); got != "end" {
				t.Errorf("eve received %q, want only what was for her", got)
			}
		})
	}
}

// Code that was written for GatewayClient goes on with another class: what each of
// its methods does to clients is what the name says.
func TestPHPClassDoesWhatGatewayClientDoes(t *testing.T) {
	program := phpWithCurl(t)
	caddy, site, env := pushCaddy(t)
	ask := func(code string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "ask.php")
		script := `<?php
require '` + filepath.Join(e2etest.RepoRoot(t), "examples/push/push.php") + `';
use Push\Gateway;
Gateway::$url = getenv('PUSH_URL');
Gateway::$token = getenv('PUSH_TOKEN');
try { echo json_encode(` + code + `); } catch (Exception $e) { echo get_class($e), ' ', $e->getMessage(); }
`
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errs, err := runProgram(t, env, program, "-d", "display_errors=stderr", "-d", "error_reporting=-1", file)
		if err != nil || errs != "" {
			t.Fatalf("%s: %v %s %s", code, err, out, errs)
		}
		return out
	}
	want := func(code, want string) {
		t.Helper()
		if got := ask(code); got != want {
			t.Errorf("%s returns %s, want %s", code, got, want)
		}
	}
	tom := caddy.Dial("wss://"+site+"/ws?user=7&group=news", nil)
	ann := caddy.Dial("wss://"+site+"/ws?user=ann&group=news", nil)
	var ids []string
	if err := json.Unmarshal([]byte(ask("Gateway::getClientIdByUid(7)")), &ids); err != nil || len(ids) != 1 {
		t.Fatalf("user 7 has the connections %q: %v", ids, err)
	}
	id := "'" + ids[0] + "'"

	want("[Gateway::isUidOnline(7), Gateway::isUidOnline('nobody'), Gateway::isOnline("+id+"), Gateway::isOnline('gone')]", "[true,false,true,false]")
	want("[Gateway::getAllClientIdCount(), count(Gateway::getAllClientIdList()), Gateway::getAllUidList(), Gateway::getAllGroupIdList()]", `[2,2,["7","ann"],["news"]]`)
	want("[Gateway::sendToUid([7, 'ann', 'nobody'], 'to both'), Gateway::sendToClient("+id+", 'to him'), Gateway::sendToGroup('news', 'but him', "+id+")]", "[2,1,1]")
	want("[Gateway::sendToAll('to all'), Gateway::sendToAll('to some', ["+id+"]), Gateway::sendToAll('but him', null, ["+id+"])]", "[2,1,1]")
	for _, text := range []string{"to both", "to him", "to all", "to some"} {
		wantNext(t, tom, text)
	}
	for _, text := range []string{"to both", "but him", "to all", "but him"} {
		wantNext(t, ann, text)
	}
	want(`Gateway::sendToUid(7, "\xff\x00")`, "1")
	if got := next(tom); got != "\xff\x00" {
		t.Errorf("bytes arrive as %q", got)
	}

	want("[Gateway::joinGroup("+id+", ['vip', 8]), Gateway::leaveGroup("+id+", 'news'), Gateway::getClientIdCountByGroup('vip'), Gateway::getClientIdListByGroup('vip') == ["+id+"]]", "[1,1,1,true]")
	want("[Gateway::getUidListByGroup('news'), Gateway::ungroup(8), Gateway::getAllGroupIdList()]", `[["ann"],1,["news","vip"]]`)
	want("[Gateway::getSession("+id+"), Gateway::setSession("+id+", ['a' => 1, 'b' => ['c' => 'ü']]), Gateway::updateSession("+id+", ['a' => null, 'd' => 2]), Gateway::getSession("+id+")]",
		`[[],1,1,{"b":{"c":"\u00fc"},"d":2}]`)
	want("Gateway::getClientSessionsByGroup('vip')", `{"`+ids[0]+`":{"b":{"c":"\u00fc"},"d":2}}`)
	want("[Gateway::setSession("+id+", []), Gateway::getSession("+id+"), Gateway::getSession('gone')]", "[1,[],null]")
	want("[Gateway::bindUid("+id+", 9), Gateway::getUidByClientId("+id+"), Gateway::unbindUid("+id+"), Gateway::getUidByClientId("+id+")]", `[1,"9",1,null]`)
	want("[Gateway::closeClient("+id+", 'good bye')]", "[1]")
	wantNext(t, tom, "good bye")
	wantNext(t, tom, "1000")
	want("Gateway::bindUid('x', '')", "RuntimeException POST /bind: 400 invalid_command: user: the name is empty")
	want("[Gateway::$token = 'wrong', Gateway::getAllClientIdCount()]", "RuntimeException GET /count: 401 unauthorized: the token is wrong")
}
