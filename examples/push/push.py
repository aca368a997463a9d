"""Pushes a text to all connections of a user:

    PUSH_TOKEN=... python3 examples/push/push.py tom "hello from Python"

or, from your own code: from push import call, send_to_user
"""
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

URL = os.environ.get("PUSH_URL", "http://127.0.0.1:4480")
TOKEN = os.environ.get("PUSH_TOKEN", "")


class PushError(Exception):
    """What the API answered instead of 200."""


def call(method, path, body=None):
    """One call of the API. A command that is tried again is done once."""
    headers = {"Authorization": "Bearer " + TOKEN}
    data = None
    if body is not None:
        headers |= {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        data = json.dumps(body).encode()
    attempt = 1
    while True:
        request = urllib.request.Request(URL + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.load(response)
        except urllib.error.HTTPError as refusal:
            if refusal.code != 503 or attempt == 3:
                error = json.load(refusal)["error"]
                raise PushError(f"{method} {path}: {refusal.code} {error['code']}: {error['message']}") from None
        except OSError:
            if attempt == 3:
                raise
        time.sleep(0.2 * attempt)
        attempt += 1


def send_to_user(user, text):
    return call("POST", "/send", {"to": {"users": [user]}, "text": text})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: PUSH_TOKEN=... python3 push.py <user> <text>")
    try:
        print(json.dumps(send_to_user(*sys.argv[1:])))
    except (PushError, OSError) as error:
        sys.exit(str(error))
