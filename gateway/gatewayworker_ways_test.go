package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// What the tests of gatewayworker_test.go do each function with: in Go, as a call of
// the push API, and as a command of a webhook's answer. {ann} stands for ann's client
// id; see newTown for who is there.

// order is a function that changes something.
type order struct {
	theirs string
	before func(tn *town) // may be nil
	inGo   func(tn *town) (int, error)
	call   string // of the push API
	want   int    // clients that it reaches
	check  func(tn *town)
}

// carryOut does each order in every way.
func carryOut(t *testing.T, orders []order) {
	t.Helper()
	for _, o := range orders {
		for way, do := range map[string]func(*town) (int, error){
			"Go":   o.inGo,
			"HTTP": func(tn *town) (int, error) { return tn.reached(o.call) },
			"command": func(tn *town) (n int, err error) {
				for _, c := range tn.commands(o.call) {
					if n, err = tn.Gateway.Do(&c); err != nil {
						break
					}
				}
				return n, err
			},
		} {
			t.Run(o.theirs+"/"+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tn := newTown(t)
					if o.before != nil {
						o.before(tn)
					}
					if n, err := do(tn); n != o.want || err != nil {
						t.Fatalf("reached %d (%v), want %d", n, err, o.want)
					}
					o.check(tn)
				})
			})
		}
	}
}

// question is a function that asks something.
type question struct {
	theirs       string
	before       func(tn *town) // may be nil
	inGo, byHTTP func(tn *town) (any, error)
	want         any
}

// ask makes a question whose answer is a T, in Go and as JSON.
func ask[T any](theirs string, inGo func(tn *town, g *gateway.Gateway) (T, error), call string, pick func(tn *town, answer T) any, want any) question {
	picked := func(tn *town, answer T, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		return pick(tn, answer), nil
	}
	return question{
		theirs: theirs, want: want,
		inGo: func(tn *town) (any, error) {
			answer, err := inGo(tn, tn.Gateway)
			return picked(tn, answer, err)
		},
		byHTTP: func(tn *town) (any, error) {
			var answer T
			err := tn.push(call, &answer)
			return picked(tn, answer, err)
		},
	}
}

// putQuestions asks each question in both ways.
func putQuestions(t *testing.T, questions []question) {
	t.Helper()
	for _, q := range questions {
		for way, do := range map[string]func(*town) (any, error){"Go": q.inGo, "HTTP": q.byHTTP} {
			t.Run(q.theirs+"/"+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tn := newTown(t)
					if q.before != nil {
						q.before(tn)
					}
					if got, err := do(tn); err != nil || !reflect.DeepEqual(got, q.want) {
						t.Errorf("answered %v (%v), want %v", got, err, q.want)
					}
				})
			})
		}
	}
}

// fill replaces {ann} by ann's client id.
func (tn *town) fill(s string) string {
	for who, id := range tn.ids {
		s = strings.ReplaceAll(s, "{"+who+"}", id)
	}
	return s
}

// push makes a call, like `POST /send {"to": ...}`. An answer that is no 200 is an
// error, and an unknown client is errUnknown.
func (tn *town) push(call string, into any) error {
	method, rest, _ := strings.Cut(tn.fill(call), " ")
	path, body, _ := strings.Cut(rest, " ")
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	httpapi.New(tn.Gateway, httpapi.Options{}).ServeHTTP(w, r)
	switch w.Code {
	case http.StatusOK:
		return json.Unmarshal(w.Body.Bytes(), into)
	case http.StatusNotFound:
		return errUnknown
	}
	return fmt.Errorf("%s: %d %s", call, w.Code, w.Body)
}

var errUnknown = errors.New("no such client")

// reached makes a call that commands something; of several commands the last counts.
func (tn *town) reached(call string) (int, error) {
	var all struct {
		httpapi.Result
		Results []httpapi.Result
	}
	if err := tn.push(call, &all); err != nil {
		return 0, err
	}
	last := append([]httpapi.Result{all.Result}, all.Results...)[len(all.Results)]
	if last.Clients == nil {
		return 0, fmt.Errorf("%s: %+v", call, last.Error)
	}
	return *last.Clients, nil
}

// commands returns what a webhook answers instead of a call.
func (tn *town) commands(call string) []gateway.Command {
	tn.t.Helper()
	head, body, _ := strings.Cut(tn.fill(call), " {")
	body = "{" + body
	if head != "POST /batch" {
		name := map[string]string{"PUT /session": "set_session", "PATCH /session": "update_session"}[head]
		if name == "" {
			name = strings.TrimPrefix(head, "POST /")
		}
		body = fmt.Sprintf(`{"commands": [{%q: %s}]}`, name, body)
	}
	var in struct{ Commands []gateway.Command }
	if err := json.Unmarshal([]byte(body), &in); err != nil {
		tn.t.Fatalf("%s: %v", body, err)
	}
	return in.Commands
}

// hears checks who has received "hit", once.
func hears(who ...string) func(*town) {
	return func(tn *town) {
		tn.t.Helper()
		if _, err := tn.Gateway.Send(gateway.All(), gateway.Text("end")); err != nil {
			tn.t.Fatal(err)
		}
		for name, conn := range tn.conns {
			if slices.Contains(who, name) {
				conn.Want("hit")
			}
			conn.Want("end")
		}
	}
}

// whos returns who has these ids, sorted.
func (tn *town) whos(ids []string) string {
	var who []string
	for name, id := range tn.ids {
		if slices.Contains(ids, id) {
			who = append(who, name)
		}
	}
	slices.Sort(who)
	return strings.Join(who, " ")
}

func (tn *town) whoAre(list gateway.ClientList) string {
	var ids []string
	for _, c := range list.Clients {
		ids = append(ids, c.ID)
	}
	return tn.whos(ids)
}

// byGroup returns what pick says of each client, by groups, sorted and once.
func byGroup(list gateway.ClientList, pick func(gateway.ClientInfo) string) map[string][]string {
	groups := make(map[string][]string)
	for _, c := range list.Clients {
		for _, group := range c.Groups {
			groups[group] = append(groups[group], pick(c))
		}
	}
	for group, values := range groups {
		slices.Sort(values)
		groups[group] = slices.Compact(values)
	}
	return groups
}

func counts(groups map[string][]string) map[string]int {
	n := make(map[string]int)
	for group, values := range groups {
		n[group] = len(values)
	}
	return n
}

func users(list gateway.ClientList) []string {
	var names []string
	for _, c := range list.Clients {
		names = append(names, c.User)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func namesOf(list gateway.NameList) (names []string) {
	for _, n := range list.Names {
		names = append(names, n.Name)
	}
	return names
}

// count is the answer to GET /count.
type count struct{ Clients int }

func countOf(of gateway.Target) func(*town, *gateway.Gateway) (count, error) {
	return func(_ *town, g *gateway.Gateway) (count, error) {
		reach, err := g.Count(context.Background(), of)
		return count{reach.Clients}, err
	}
}

func listOf(q gateway.Query) func(*town, *gateway.Gateway) (gateway.ClientList, error) {
	return func(_ *town, g *gateway.Gateway) (gateway.ClientList, error) {
		return g.Clients(context.Background(), q)
	}
}

func usersOf(_ *town, g *gateway.Gateway) (gateway.NameList, error) {
	return g.Users(context.Background(), gateway.NameQuery{})
}

func groupsOf(_ *town, g *gateway.Gateway) (gateway.NameList, error) {
	return g.Groups(context.Background(), gateway.NameQuery{})
}

// infoOf asks about one client, who may be gone.
func infoOf(who string) func(*town, *gateway.Gateway) (gateway.ClientInfo, error) {
	return func(tn *town, g *gateway.Gateway) (gateway.ClientInfo, error) {
		c := g.Client(tn.fill(who))
		if c == nil {
			return gateway.ClientInfo{}, errUnknown
		}
		return c.Info(true), nil
	}
}
