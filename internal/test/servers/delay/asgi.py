"""Answers /delay/MS, and the message MS on a WebSocket, after MS milliseconds, on uvicorn: asgi.py PORTS [CERTIFICATE KEY]."""
import asyncio
import socket
import sys

import uvicorn


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            await asyncio.sleep(int(message["text"]) / 1000)
            await send({"type": "websocket.send", "text": "done"})
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    if scope["path"].startswith("/delay/"):
        await asyncio.sleep(int(scope["path"][len("/delay/"):]) / 1000)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})


def listening(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", int(port)))
    return s


tls = dict(ssl_certfile=sys.argv[2], ssl_keyfile=sys.argv[3]) if len(sys.argv) > 2 else {}
config = uvicorn.Config(app, log_level="warning", lifespan="off", **tls)
uvicorn.Server(config).run(sockets=[listening(port) for port in sys.argv[1].split(",")])
