// Command push pushes a text to all connections of a user:
//
//	PUSH_TOKEN=... go run ./examples/push tom "hello from Go"
package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: PUSH_TOKEN=... push <user> <text>")
		os.Exit(2)
	}
	p := &pusher{
		url:    cmp.Or(os.Getenv("PUSH_URL"), "http://127.0.0.1:4480"),
		token:  os.Getenv("PUSH_TOKEN"),
		client: &http.Client{Timeout: 10 * time.Second},
	}
	n, err := p.sendToUser(context.Background(), os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("{\"clients\": %d}\n", n)
}

// pusher calls the push API.
type pusher struct {
	url    string
	token  string
	client *http.Client
}

// result is the answer to a command.
type result struct {
	Clients int `json:"clients"`
	Error   *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// sendToUser returns how many connections the text was queued for.
func (p *pusher) sendToUser(ctx context.Context, user, text string) (int, error) {
	return p.command(ctx, http.MethodPost, "/send", map[string]any{
		"to": map[string]any{"users": []string{user}}, "text": text,
	})
}

// command is one command. If it is tried again, it is done once.
func (p *pusher) command(ctx context.Context, method, path string, body any) (int, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", method, path, err)
	}
	const tries, pause = 3, 200 * time.Millisecond
	key := rand.Text()
	for try := 1; ; try++ {
		n, err := p.once(ctx, method, path, key, data)
		if err == nil || try == tries || errors.Is(err, errRefused) {
			return n, err
		}
		select {
		case <-time.After(pause * time.Duration(try)):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// errRefused says that there is no use in trying again.
var errRefused = errors.New("refused")

func (p *pusher) once(ctx context.Context, method, path, key string, data []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, bytes.NewReader(data))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	res, err := p.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var answer result
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return 0, fmt.Errorf("%s %s: %s: %w", method, path, res.Status, err)
	}
	if answer.Error != nil {
		err := fmt.Errorf("%s %s: %s: %s: %s", method, path, res.Status, answer.Error.Code, answer.Error.Message)
		if res.StatusCode != http.StatusServiceUnavailable {
			err = fmt.Errorf("%w: %w", errRefused, err)
		}
		return answer.Clients, err
	}
	return answer.Clients, nil
}
