package httpapi_test

import (
	"context"
	"crypto/subtle"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// checkToken lets requests through that carry the token.
func checkToken(token string, next http.Handler) http.Handler {
	want := []byte("Bearer " + token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "token missing or wrong", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// The calls on net/http, below /push/, for who has the token.
func Example() {
	g, err := gateway.New(gateway.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = g.Shutdown(context.Background()) }()

	api := httpapi.New(g, httpapi.Options{
		Endpoints: []string{"chat"},
		Replay:    httpapi.NewReplay(httpapi.ReplayOptions{}),
	})
	mux := http.NewServeMux()
	mux.Handle("/push/", http.StripPrefix("/push", checkToken("s3cret", api)))
	server := httptest.NewServer(mux)
	defer server.Close()

	for _, token := range []string{"guess", "s3cret"} {
		body := strings.NewReader(`{"to": {"users": ["7"]}, "text": "hello"}`)
		r, err := http.NewRequest(http.MethodPost, server.URL+"/push/send", body)
		if err != nil {
			log.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		resp, err := server.Client().Do(r)
		if err != nil {
			log.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(resp.StatusCode, " ", string(answer))
	}
	// Output:
	// 401 token missing or wrong
	// 200 {"clients":0}
}
