"""A client of another make, Python's websockets, against a running server.

    python3 client.py wss://localhost:4431 root.crt

For each check it prints a line of JSON, {"check": NAME, "got": what happened}. Who
started it knows what should have. ../node/client.mjs prints the same for Node's ws.
It speaks the interface of websockets 10 (Debian 12, Ubuntu 24.04) and that of 14 and
later.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import ssl
import sys

import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

SITE = sys.argv[1]
TRUST = ssl.create_default_context(cafile=sys.argv[2] if len(sys.argv) > 2 else None)
ORIGIN = "https://localhost"
MIB = 1 << 20
LEGACY = int(websockets.__version__.split(".")[0]) < 14


@contextlib.asynccontextmanager
async def connect(path, **options):
    """A connection that sends no pings of its own."""
    options = {"origin": ORIGIN, "compression": None, "ping_interval": None, "max_size": None} | options
    async with websockets.connect(SITE + path, ssl=TRUST, open_timeout=10, close_timeout=10, **options) as ws:
        yield ws


def describe(message):
    """Tell a short message's content and a long one's length and hash."""
    data = message.encode() if isinstance(message, str) else message
    kind = "text" if isinstance(message, str) else "binary"
    if len(data) > 100:
        return {"type": kind, "length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {"type": kind, "data": message if isinstance(message, str) else data.hex()}


async def echoed(ws, message):
    """Send, and tell what came back."""
    await ws.send(message)
    return describe(await ws.recv())


async def ended(ws):
    """Wait for the end of a connection, and tell how it came."""
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            await ws.recv()
    await ws.wait_closed()
    return {"code": ws.close_code, "reason": ws.close_reason}


async def send_and_end(ws, message):
    with contextlib.suppress(websockets.ConnectionClosed):
        await ws.send(message)
    return (await ended(ws))["code"]


async def refusal(path, **options):
    """The status that a handshake is refused with."""
    try:
        async with connect(path, **options):
            return 101
    except websockets.InvalidStatus as err:
        return err.response.status_code
    except websockets.InvalidHandshake as err:  # of version 10: InvalidStatusCode
        return err.status_code


def answered(ws, header):
    return (ws.response_headers if LEGACY else ws.response.headers).get(header)


class Count:
    """Counts the bytes of compressed frames, and the frames that are not compressed."""

    def __init__(self, ws):
        self.bytes = self.plain = 0
        for extension in ws.extensions if LEGACY else ws.protocol.extensions:
            self.watch(extension)

    def watch(self, extension):
        decode, encode = extension.decode, extension.encode

        def counting_decode(frame, **options):
            self.add(frame)
            return decode(frame, **options)

        def counting_encode(frame):
            frame = encode(frame)
            self.add(frame)
            return frame

        extension.decode, extension.encode = counting_decode, counting_encode

    def add(self, frame):
        if frame.opcode in (1, 2):
            self.bytes += len(frame.data)
            self.plain += not frame.rsv1


async def text():
    async with connect("/echo") as ws:
        return [await echoed(ws, "tom"), await echoed(ws, ""), await echoed(ws, "日本語 \0 👋")]


async def binary():
    async with connect("/echo") as ws:
        return [await echoed(ws, bytes([0, 255, 254])), await echoed(ws, b"")]


async def fragments():
    async with connect("/echo") as ws:
        return await echoed(ws, ["one ", "two ", "", "three"])


async def mib_of_text():
    async with connect("/echo") as ws:
        message = "x" * MIB
        return await echoed(ws, message) == describe(message)


async def mib_of_bytes():
    async with connect("/echo") as ws:
        message = os.urandom(MIB)
        return await echoed(ws, message) == describe(message)


async def many_in_order():
    async with connect("/echo") as ws:

        async def send():
            for i in range(1000):
                await ws.send(str(i))

        sending = asyncio.create_task(send())
        for i in range(1000):
            if (got := await ws.recv()) != str(i):
                return f"{got} in place of {i}"
        await sending
        return "in order"


async def close_by_client():
    async with connect("/echo") as ws:
        await ws.close(4001, "bye")
        return await ended(ws)


async def close_by_server():
    async with connect("/rate") as ws:
        with contextlib.suppress(websockets.ConnectionClosed):
            for _ in range(5):
                await ws.send("quick")
        return await ended(ws)


async def too_big():
    async with connect("/small") as ws:
        return await send_and_end(ws, "x" * (2 << 10))


async def far_too_big():
    async with connect("/small") as ws:
        return await send_and_end(ws, os.urandom(16 * MIB))


async def bomb():
    async with connect("/bomb", compression="deflate") as ws:
        return await send_and_end(ws, bytes(16 * MIB))


async def bad_utf8():
    async with connect("/echo") as ws:
        if LEGACY:
            await ws.write_frame(True, 1, b"\xff\xfe")
        else:
            await ws.send(b"\xff\xfe", text=True)
        return (await ended(ws))["code"]


async def ping():
    async with connect("/echo") as ws:
        pong = await ws.ping("x" * 125)
        await pong
        await ws.pong("unasked")
        return await echoed(ws, "still there")


async def ping_by_server():
    async with connect("/ping") as ws:
        await asyncio.sleep(4.5)  # cut after 3 s unless the library answers pings
        return await echoed(ws, "still there")


async def compression():
    async with connect("/deflate", compression="deflate") as ws:
        count = Count(ws)
        message = "x" * MIB
        same = await echoed(ws, message) == describe(message)
        again = await echoed(ws, message) == describe(message)
        return {
            "extensions": answered(ws, "Sec-WebSocket-Extensions"),
            "same": same,
            "again": again,
            "few": 0 < count.bytes < MIB / 4 and count.plain == 0,
        }


async def incompressible():
    async with connect("/deflate", compression="deflate") as ws:
        message = os.urandom(MIB)
        return [await echoed(ws, message) == describe(message), await echoed(ws, ""), await echoed(ws, "tom")]


async def compressed_fragments():
    async with connect("/deflate", compression="deflate") as ws:
        one, two = "one " * 1000, "two " * 1000
        return await echoed(ws, [one, two]) == describe(one + two)


async def server_window():
    offer = ClientPerMessageDeflateFactory(server_max_window_bits=10)
    async with connect("/deflate", extensions=[offer]) as ws:
        return {"extensions": answered(ws, "Sec-WebSocket-Extensions"), "echo": await echoed(ws, "tom")}


async def client_window():
    offer = ClientPerMessageDeflateFactory(client_max_window_bits=10)
    async with connect("/deflate", extensions=[offer]) as ws:
        message = ",".join(map(str, range(10_000)))
        same = await echoed(ws, message) == describe(message)
        return {"extensions": answered(ws, "Sec-WebSocket-Extensions"), "same": same}


async def no_compression():
    async with connect("/echo", compression="deflate") as ws:
        return {"extensions": answered(ws, "Sec-WebSocket-Extensions"), "echo": await echoed(ws, "tom")}


async def subprotocol():
    async with connect("/chat", subprotocols=["chat.v1", "other", "chat.v2"]) as ws:
        return {"protocol": ws.subprotocol, "echo": await echoed(ws, "tom")}


async def no_subprotocol():
    async with connect("/chat") as ws:
        return ws.subprotocol or ""


async def origin_refused():
    return await refusal("/echo", origin="https://elsewhere.example")


async def no_origin():
    async with connect("/echo", origin=None) as ws:
        return await echoed(ws, "tom")


async def too_many():
    async with connect("/one"):
        return await refusal("/one")


async def told_to_go():
    async with connect("/echo") as ws:
        show("told to go: open", await echoed(ws, "tom"))
        return (await ended(ws))["code"]


CHECKS = {
    "text": text,
    "binary": binary,
    "fragments": fragments,
    "a MiB of text": mib_of_text,
    "a MiB of bytes": mib_of_bytes,
    "many in order": many_in_order,
    "close by the client": close_by_client,
    "close by the server": close_by_server,
    "too big": too_big,
    "far too big": far_too_big,
    "far too big when inflated": bomb,
    "bad UTF-8": bad_utf8,
    "ping": ping,
    "ping by the server": ping_by_server,
    "compression": compression,
    "compression of what does not shrink": incompressible,
    "compressed fragments": compressed_fragments,
    "a smaller window of the server": server_window,
    "a smaller window of the client": client_window,
    "compression not configured": no_compression,
    "subprotocol": subprotocol,
    "subprotocol not offered": no_subprotocol,
    "origin refused": origin_refused,
    "no origin": no_origin,
    "too many from one address": too_many,
    "told to go": told_to_go,
}


def show(check, got):
    print(json.dumps({"check": check, "got": got}), flush=True)


async def main():
    for name, check in CHECKS.items():
        try:
            show(name, await asyncio.wait_for(check(), 20))
        except Exception as err:  # whatever it is, the next check may still tell something
            show(name, {"error": f"{type(err).__name__}: {err}"})


asyncio.run(main())
