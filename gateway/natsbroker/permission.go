package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// ErrRefused is wrapped by the reason why a link is down, and by Connect's error, if the
// server does not let the node use its gateway's subjects.
var ErrRefused = errors.New("natsbroker: the server's permissions do not fit the prefix")

// What a gateway is not on without: the subject of all nodes, and those of each.
const (
	subjectAll    = "all"
	subjectOfNode = "n."
	subjectNobody = subjectOfNode + "nobody" // to find out whether publishing is allowed
)

var violation = regexp.MustCompile(`(?i)(publish|subscription) to "([^"]+)"`)

// refusal says what the server has refused, and which subject that is. The subject is
// empty if the server does not tell.
func (o *Options) refusal(err error) (subject string, _ error) {
	found := violation.FindStringSubmatch(err.Error())
	if found == nil {
		return "", fmt.Errorf("%w, which is %q: %w", ErrRefused, o.Prefix, err)
	}
	what := "publish to"
	if strings.EqualFold(found[1], "subscription") {
		what = "subscribe to"
	}
	return found[2], fmt.Errorf("%w: %s may not %s %s; with the prefix %q it needs %s.>",
		ErrRefused, o.who(), what, found[2], o.Prefix, o.Prefix)
}

// who names the user that the server knows us as.
func (o *Options) who() string {
	switch {
	case o.User != "":
		return fmt.Sprintf("user %q", o.User)
	case o.CredentialsFile != "":
		return fmt.Sprintf("the user of %q", o.CredentialsFile)
	case o.NKeySeedFile != "":
		return fmt.Sprintf("the user of %q", o.NKeySeedFile)
	default:
		return "this node"
	}
}

// violated hears that the server has refused a subject. Whose own that is is down. If no
// link has any use for the session it is ended: the next one may find other permissions.
func (b *Broker) violated(s *session, err error) {
	subject, why := b.options.refusal(err)
	b.log.line(slog.LevelError, "NATS refuses a subject: nodes do not hear each other there", slog.Any("error", why))
	b.mu.Lock()
	defer b.mu.Unlock()
	hit, of := false, false
	for l := range b.links {
		if name, ok := strings.CutPrefix(subject, l.prefix); ok && (name == subjectAll || strings.HasPrefix(name, subjectOfNode)) {
			hit = l.refuse(s, why) || hit
		}
		of = of || l.uses(s)
	}
	if hit && !of {
		s.giveUp(why)
	}
}

// refuse takes the link down. It returns false if it was refused before.
func (l *link) refuse(s *session, why error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != s || l.refused != nil {
		return false
	}
	l.refused, l.state = why, down
	l.in.Down(why)
	return true
}

// uses tells whether the link is up with a session, or may come up.
func (l *link) uses(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session == s && l.refused == nil
}

// knock has the server refuse to publish for the link's gateway, if it does. Nobody
// hears it.
func (l *link) knock(s *session) {
	_ = s.nc.Publish(l.prefix+subjectNobody, nil) // fails if the session has ended
}

// try finds out whether a node of a gateway would be up. The error wraps
// gateway.ErrLinkDown if the connection is lost meanwhile.
func (b *Broker) try(ctx context.Context, gatewayName string) error {
	t := &trial{refused: make(chan error, 1)}
	l, err := b.Attach(gatewayName, "", t)
	if err != nil {
		return err
	}
	defer l.Close()
	l.Subscribe(subjectAll)
	through := make(chan error, 1)
	l.Flush(func(err error) { through <- err })
	select {
	case err = <-through:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err = <-t.refused: // told before
	default:
	}
	return err
}

// trial is a Receiver that only wants to know whether its link is refused.
type trial struct{ refused chan error }

// Receive is of gateway.Receiver.
func (*trial) Receive([]byte) {}

// Up is of gateway.Receiver.
func (*trial) Up() {}

// Missed is of gateway.Receiver.
func (*trial) Missed(int) {}

// Down is of gateway.Receiver.
func (t *trial) Down(why error) {
	if !errors.Is(why, ErrRefused) {
		return
	}
	select {
	case t.refused <- why:
	default:
	}
}

// caughtUp waits until all that the server has refused so far was told: nats.go tells it
// from a goroutine of its own.
func (s *session) caughtUp() {
	for {
		s.mu.Lock()
		told, more := s.told, s.more
		s.mu.Unlock()
		last := s.nc.LastError()
		if last == told || !errors.Is(last, nats.ErrPermissionViolation) { //nolint:errorlint // it is the same or it is not
			return
		}
		select {
		case <-more:
		case <-s.ended:
			return
		}
	}
}

// tell notes that an error was told.
func (s *session) tell(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = err
	close(s.more)
	s.more = make(chan struct{})
}

// giveUp ends a session that is of no use.
func (s *session) giveUp(why error) {
	s.mu.Lock()
	if s.useless == nil {
		s.useless = why
	}
	s.mu.Unlock()
	s.abort()
}

// Interface guards
var _ gateway.Receiver = (*trial)(nil)
