package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// A machine that is to be restarted sends its clients to the others first, and
// takes none until it is told to.
func TestDrainEmptiesTheGatewayUntilResume(t *testing.T) {
	for restart, code := range map[bool]int{true: gateway.CloseServiceRestart, false: gateway.CloseGoingAway} {
		synctest.Test(t, func(t *testing.T) {
			logic := &gatewaytest.Recorder{}
			e := gatewaytest.Endpoint(t, "chat", gateway.EndpointOptions{Logic: logic})
			s := gatewaytest.Serve(t, e)
			c := s.Dial("/chat")
			done := make(chan error)
			go func() { done <- s.Gateway.Drain(t.Context(), restart) }()
			c.WantClose(code)
			if err := <-done; err != nil {
				t.Errorf("draining: %v", err)
			}
			if !s.Gateway.Draining() || !s.Gateway.Stats().Draining {
				t.Error("it does not say that it is draining")
			}
			s.Refused(http.StatusServiceUnavailable, "/chat")
			s.Gateway.Resume()
			s.Dial("/chat")
		})
	}
}

// Who waits for it learns when not all have gone.
func TestDrainSaysWhoIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		logic := &gatewaytest.Recorder{Message: func(*gateway.Client, gateway.Message) error {
			<-release
			return nil
		}}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "chat", gateway.EndpointOptions{Logic: logic}))
		s.Dial("/chat").Send("hang")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Gateway.Drain(ctx, false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("draining: %v, want that a client is left", err)
		}
		go func() {
			time.Sleep(time.Second)
			s.Gateway.Resume()
		}()
		if err := s.Gateway.Drain(t.Context(), false); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("draining, and told to resume: %v, want an error", err)
		}
		close(release)
	})
}
