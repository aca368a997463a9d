package httpapi

import (
	"net/http"
	"slices"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

const (
	// heartbeat is after how much silence a tail says that it lives.
	heartbeat = 15 * time.Second

	// tailWriteTimeout is how long a reader of a tail may take in nothing.
	tailWriteTimeout = 10 * time.Second

	// tailBatch is how many events are written before they are flushed.
	tailBatch = 256
)

// Missed is a line of a tail: so many events came faster than they were read.
type Missed struct {
	Missed int64 `json:"missed"`
}

// Heartbeat is a line of a tail that has had nothing to say.
type Heartbeat struct {
	Heartbeat time.Time `json:"heartbeat"`
}

// tail writes what happens, one JSON object a line, until the reader goes away or
// the gateway has ended.
func (h *Handler) tail(w http.ResponseWriter, r *http.Request, q query) error {
	o := gateway.WatchOptions{Client: q.one("client"), Endpoint: q.one("endpoint")}
	var err error
	if o.Messages, err = q.flag("messages"); err != nil {
		return err
	}
	if o.Payload, err = q.number("payload"); err != nil {
		return err
	}
	if o.Payload > h.o.Payload {
		return invalid(CodeInvalidQuery, "payload: %d, allowed are %d bytes", o.Payload, h.o.Payload)
	}
	// Nodes that are not named are all, as in lists.
	if o.Nodes, err = h.known(q["node"]); err != nil {
		return err
	}
	o.AllNodes = len(o.Nodes) == 0
	if o.Endpoint == "" && len(h.o.Endpoints) == 1 {
		o.Endpoint = h.o.Endpoints[0]
	}
	select {
	case h.tails <- struct{}{}:
	default:
		return failed(http.StatusTooManyRequests, CodeTooManyRequests, "%d tails are running: more are not allowed", maxTails)
	}
	defer func() { <-h.tails }()

	watcher := h.g.Watch(o)
	defer watcher.Close()
	out := &tailWriter{w: w, rc: http.NewResponseController(w)}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead || !out.flush() {
		return nil
	}
	h.follow(watcher, h.hearing(o), out, r)
	return nil
}

// follow writes what the watcher is told.
func (h *Handler) follow(watcher *gateway.Watcher, heard *hearing, out *tailWriter, r *http.Request) {
	silence, look := time.NewTicker(heartbeat), time.NewTicker(heardEvery)
	defer silence.Stop()
	defer look.Stop()
	say := func() bool {
		change := heard.change()
		if change == nil {
			return true
		}
		silence.Reset(heartbeat)
		return out.line(change) && out.flush()
	}
	if !say() {
		return
	}
	for {
		select {
		case <-look.C:
			if !say() {
				return
			}
		case e := <-watcher.Events():
			silence.Reset(heartbeat)
			if !h.gather(watcher, out, e) {
				return
			}
		case now := <-silence.C:
			if !out.line(Heartbeat{now}) || !out.flush() {
				return
			}
		case <-r.Context().Done():
			return
		case <-h.g.Done():
			select {
			case e := <-watcher.Events():
				if !h.gather(watcher, out, e) {
					return
				}
			default:
				return
			}
		}
	}
}

// gather writes an event and those that already wait behind it.
func (h *Handler) gather(watcher *gateway.Watcher, out *tailWriter, e gateway.Event) bool {
	for n := 1; ; n++ {
		if h.shows(e.Endpoint) && !out.line(e) {
			return false
		}
		if n == tailBatch {
			break
		}
		select {
		case e = <-watcher.Events():
			continue
		default:
		}
		break
	}
	if missed := watcher.Missed(); missed > 0 && !out.line(Missed{missed}) {
		return false
	}
	return out.flush()
}

func (h *Handler) shows(endpoint string) bool {
	return len(h.o.Endpoints) == 0 || slices.Contains(h.o.Endpoints, endpoint)
}

// tailWriter writes lines and gives a reader up who takes in nothing. Its deadline is
// taken off by net/http when the request is over.
type tailWriter struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (t *tailWriter) line(v any) bool {
	data, err := encode(v)
	if err != nil {
		return false
	}
	_ = t.rc.SetWriteDeadline(time.Now().Add(tailWriteTimeout)) // where there is none, the server's holds
	_, err = t.w.Write(data)
	return err == nil
}

func (t *tailWriter) flush() bool {
	_ = t.rc.SetWriteDeadline(time.Now().Add(tailWriteTimeout))
	return t.rc.Flush() == nil
}
