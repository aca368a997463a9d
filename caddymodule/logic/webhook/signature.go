package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// keyOf returns the key that a secret stands for: what is behind whsec_ is base64,
// as in the Standard Webhooks specification and its libraries; any other text
// is the key as it is.
func keyOf(secret string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return []byte(secret), nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("secret: what follows whsec_ is not base64 (RFC 4648 section 4)") // the error itself has a part of it
	}
	if len(key) == 0 {
		return nil, errors.New("secret: nothing follows whsec_")
	}
	return key, nil
}

// sign returns the value of the header webhook-signature.
func sign(key []byte, id string, timestamp int64, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.", id, timestamp)
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// newID returns an id that no other request has; retries have that of the first.
func newID() string { return "msg_" + rand.Text() }
