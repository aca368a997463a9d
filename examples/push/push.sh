#!/bin/sh
# Pushes a text to all connections of a user:
#
#	PUSH_TOKEN=... examples/push/push.sh tom "hello from a shell"
set -eu
: "${PUSH_TOKEN:?is the token that the Caddyfile has}"
url=${PUSH_URL:-http://127.0.0.1:4480}
user=${1:?is the user} text=${2:?is the text}

# quote makes JSON of a line of text. (For more than a line, take jq.)
quote() {
	printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"
}

# With a key of its own, a request that is tried again is done once. The token comes
# on standard input, since everybody on the machine can read the command line.
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
printf 'header = "Authorization: Bearer %s"\n' "$PUSH_TOKEN" |
	curl --config - --fail-with-body --silent --show-error --max-time 10 --retry 2 --retry-connrefused \
		--header 'Content-Type: application/json' \
		--header "Idempotency-Key: $key" \
		--data-raw "{\"to\": {\"users\": [$(quote "$user")]}, \"text\": $(quote "$text")}" \
		"$url/send"
