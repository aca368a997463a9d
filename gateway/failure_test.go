package gateway_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// A broker that cannot be reached would fill the log if every command said so; what is
// wrong with a command must not be lost among that.
func TestThatACommandReachedThisNodeOnlyIsNoFailure(t *testing.T) {
	wrong := errors.New("wrong")
	alone := fmt.Errorf("%w: %w", gateway.ErrLocalOnly, gateway.ErrLinkDown)
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, "<nil>"},
		{wrong, "wrong"},
		{gateway.ErrLocalOnly, "<nil>"},
		{alone, "<nil>"},
		{fmt.Errorf("telling them: %w", alone), "<nil>"},
		{errors.Join(nil, alone), "<nil>"},
		{errors.Join(wrong, alone), "wrong"},
		{errors.Join(nil, errors.Join(wrong, gateway.ErrLocalOnly)), "wrong"},
		{errors.Join(wrong, errors.Join(wrong, alone)), "wrong\nwrong"},
	} {
		if got := fmt.Sprint(gateway.Failure(tt.err)); got != tt.want {
			t.Errorf("of %q it is %q, want %q", fmt.Sprint(tt.err), got, tt.want)
		}
	}
}
