package e2e

import (
	"os"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

func TestMain(m *testing.M) { os.Exit(e2etest.Main(m)) }
