package webhook

import (
	"encoding/json"
	"strings"
	"testing"
)

// The libraries of standardwebhooks.com verify with the same key, in every language:
// this is the vector of their own tests.
func TestSignatureIsThatOfStandardWebhooks(t *testing.T) {
	key, err := keyOf("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("signed with %s, want %s", got, want)
	}
}

// A key that is any text must be that text, also where it looks a bit like base64.
func TestKeyOfASecret(t *testing.T) {
	for secret, want := range map[string]string{
		"whsec_dG9t": "tom", "tom": "tom", "dG9t": "dG9t", "WHSEC_dG9t": "WHSEC_dG9t", " tom ": " tom ",
		"whsec_": "", "whsec_dG9": "", "whsec_dG9t!": "", "whsec_dG 9t": "", "whsec_--__": "",
	} {
		key, err := keyOf(secret)
		if string(key) != want || (err == nil) != (want != "") {
			t.Errorf("the key of %q is %q (%v), want %q", secret, key, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "dG9") {
			t.Errorf("the error for %q has a part of the secret: %v", secret, err)
		}
	}
}

// Retries are told apart from new events by their id, and an id with a dot could be
// shifted into the signed timestamp.
func TestIDsAreDifferentAndHaveNoDot(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		id := newID()
		if seen[id] || strings.Contains(id, ".") || len(id) < 26 {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
}

// A backend that is down for hours must cost memory up to a bound.
func TestQueueOfCloseEventsIsBounded(t *testing.T) {
	q := newCloseQueue()
	const size = 64 << 10
	event := json.RawMessage(strings.Repeat("x", size))
	n := 0
	for ; n < 2*maxPending/size; n++ {
		if _, added := q.add(event); !added {
			break
		}
	}
	if n != maxPending/size {
		t.Errorf("%d events of 64 KiB were taken, want %d", n, maxPending/size)
	}
	taken := 0
	for {
		b, _ := q.take(maxBatchSize, 0)
		if b == nil {
			break
		}
		bytes := 0
		for _, e := range b.events {
			bytes += len(e)
		}
		if bytes > maxBatchBytes {
			t.Errorf("a request has %d bytes, want at most %d", bytes, maxBatchBytes)
		}
		taken += len(b.events)
	}
	if _, added := q.add(event); taken != n || !added {
		t.Errorf("%d were given back, and there is room again: %t", taken, added)
	}
	huge := json.RawMessage(strings.Repeat("x", maxBatchBytes+1))
	q.add(huge)
	q.add(huge)
	q.take(maxBatchSize, 0)
	if b, _ := q.take(maxBatchSize, 0); b == nil || len(b.events) != 1 {
		t.Error("an event that is larger than a request never goes out")
	}
}
