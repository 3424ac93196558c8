"""How many requests at once, and how long one may take to arrive."""

from __future__ import annotations

import json
from typing import Any

import anyio

_ARRIVES_WITHIN_S = 30.0


class Limits:
    """ASGI middleware: more than `max_concurrent` requests at once get 503, a body that trickles in gets 408.

    Streams that a client only listens to (GET) are not counted.
    """

    def __init__(self, app: Any, max_concurrent: int, arrives_within_s: float = _ARRIVES_WITHIN_S) -> None:
        self.app = app
        self.max_concurrent = max_concurrent
        self.arrives_within_s = arrives_within_s
        self.running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self.running >= self.max_concurrent:
            await _refuse(send, 503, "too many requests at once; try again", [(b"retry-after", b"1")])
            return
        self.running += 1
        try:
            await self._timed(scope, receive, send)
        finally:
            self.running -= 1

    async def _timed(self, scope: Any, receive: Any, send: Any) -> None:
        deadline = anyio.current_time() + self.arrives_within_s
        arrived = started = False

        async def in_time() -> Any:
            nonlocal arrived
            if arrived:
                return await receive()
            with anyio.fail_after(max(0.0, deadline - anyio.current_time())):
                message = await receive()
            arrived = not message.get("more_body", False)
            return message

        async def noting(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, in_time, noting)
        except TimeoutError:
            if arrived:
                raise
            if not started:
                await _refuse(send, 408, "the request took too long to arrive", [])


async def _refuse(send: Any, status: int, why: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = json.dumps({"error": why}).encode()
    length = (b"content-length", str(len(body)).encode())
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": [(b"content-type", b"application/json"), length, *headers]})
    await send({"type": "http.response.body", "body": body})
