package hello

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

func TestHelloAnswersWithTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := gatewaytest.ServeLogic(t, Hello{}).Dial("/test")
		c.Send("tom")
		c.Want("hello tom at " + gatewaytest.DefaultIP)
	})
}

// What the README shows is what compiles here.
func TestReadmeShowsThisFile(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("hello.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+string(code)+"```\n") {
		t.Error("README.md does not show hello.go as it is")
	}
}
