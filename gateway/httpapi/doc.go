// Package httpapi is JSON over HTTP for the commands and lists of a gateway: what
// a program in any language pushes messages with, and what an operator looks at
// clients with. It needs the standard library and the gateway.
//
//	api := httpapi.New(g, httpapi.Options{Replay: httpapi.NewReplay(httpapi.ReplayOptions{})})
//	mux.Handle("/push/", http.StripPrefix("/push", checkToken(api)))
//
// A Handler trusts whoever reaches it: who may do so is decided in front of it.
// It says nothing about cross-origin requests, so browsers allow none; and since a
// body must be declared as application/json, no form of a foreign page can send one.
//
// # Calls
//
// Paths are relative to where the Handler is mounted.
//
//	POST  /send             {"to": T, "text": "..."} or "binary": "<base64>" or "json": <any>
//	POST  /close            {"to": T, "code": 1000, "reason": "..."}
//	POST  /join, /leave     {"to": T, "groups": [...]}
//	POST  /bind             {"to": T, "user": "..."}
//	POST  /unbind           {"to": T}
//	PUT   /session          {"to": T, "session": {...}}: replaces
//	PATCH /session          {"to": T, "session": {...}}: merges (RFC 7396, null deletes)
//	POST  /batch            {"commands": [{"send": {...}}, {"join": {...}}, ...]}
//	                        and with each of these ?wait=500ms
//	GET   /clients          ?endpoint=&user=&group=&ip=&fields=session&node=&limit=&cursor=
//	GET   /clients/{id}
//	GET   /groups, /users   ?prefix=&endpoint=&node=&limit=&cursor=
//	GET   /count            ?client=&user=&group=&endpoint=&except_client=&except_user=&node=
//	GET   /stats            ?endpoint=&node=
//	GET   /nodes
//	GET   /openapi.yaml
//
// and for operators (Options.Operator)
//
//	GET   /tail             ?client=&endpoint=&messages=true&payload=
//	POST  /drain            {"restart": true, "timeout": "30s"}, ?node=
//	POST  /resume           ?node=
//
// T is a gateway.Target. The bodies are those of gateway.Command; in a batch the
// two of /session are called set_session and update_session. What the answers hold
// is in openapi.yaml, which tests keep true.
//
// A command answers {"clients": N}: how many clients it reached, for /send those
// whose queue took the message. A batch answers {"results": [...]}, one for each
// command in its order; one that fails does not stop the others. A body that is
// malformed does nothing at all.
//
// In /clients all conditions must hold. In /count they are a target's: clients,
// users and groups are united, then narrowed by endpoint; none of the three means
// all.
//
// # Several nodes
//
// Where the gateway has a broker, commands are for the clients of all nodes, and lists
// show them, whichever node is asked. The number that a command answers is that of the
// node that was asked; with wait, it is that of all that have answered in so long (up to
// 30s), and "missing" names the others. "local_only" says that other nodes could not be
// told, or asked. Lists wait two seconds for nodes, and name those that are "missing"; where
// one node is asked for something that only it knows, its silence is CodeNoAnswer.
//
// node narrows a list to nodes, and "nodes" a target; self is the node that is asked, a
// host's name all nodes on it, all every one. One that is not known is CodeUnknownNode. /stats and /tail are of one node, the one that
// is asked unless /stats names another. So are /drain and /resume, unless they name
// nodes: then they answer NodeStates.
//
// # Errors
//
// Every refusal is {"error": {"code": "...", "message": "..."}} with one of the
// Code constants. With CodeLimitExceeded there is "clients", too, and what else a command
// answers: some clients took it and others could not.
//
// Names of fields are compared exactly, unlike encoding/json does; an unknown one,
// or the same one twice, is refused with its path. Numbers of a session are kept as
// they were written. What "json" holds is sent as it stands, null included; anywhere
// else a null is as good as no field. Half a surrogate pair in an escape becomes U+FFFD, as
// it does when a browser sends it.
//
// # Allowed endpoints
//
// With Options.Endpoints no call reaches, counts or shows a client of any other
// endpoint, whatever it names. Names of users and groups are the gateway's, not the
// endpoint's: who is allowed one endpoint can put its clients into any group, and
// so have them receive what others send to that group. It cannot put others in, nor
// see or reach those who are.
//
// # Idempotency-Key
//
// A command that carries this header is done once: its answer is remembered for ten
// minutes by the Replay, and given again, with "Idempotency-Replayed: true", to a
// request, its query included, with the same key. What was refused before anything was done (4xx, but
// for CodeLimitExceeded, and 503) is not remembered and can be corrected under the
// same key. Without a Replay the header is refused: who sends it relies on it. On
// calls that are no commands it has no meaning. A key is known to the process that was
// asked, and to no other node.
package httpapi
