package offer_test

import (
	"os"
	"strings"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway/extendedconnect/internal/offer"
)

// Without the import nothing changes for anybody. This program does not have it.
func TestNothingIsOfferedWithoutTheImport(t *testing.T) {
	if strings.Contains(os.Getenv("GODEBUG"), "http2xconnect") {
		t.Skip("GODEBUG says what is offered")
	}
	for name, err := range offer.Ask(t) {
		if err == nil {
			t.Errorf("%s offers extended CONNECT", name)
		}
	}
}
