"""A server of another make, Python's websockets, to stand behind a proxy.

It prints its port, tells every client the header fields of its handshake, and echoes.
Usage: python3 backend.py
"""

import asyncio
import json

import websockets


async def serve(ws):
    await ws.send(json.dumps({name.lower(): value for name, value in ws.request_headers.raw_items()}))
    async for message in ws:
        if message == "close":
            await ws.close(4002, "as asked")
        else:
            await ws.send(message)


async def main():
    async with websockets.serve(serve, "127.0.0.1", 0, subprotocols=["chat"], max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
