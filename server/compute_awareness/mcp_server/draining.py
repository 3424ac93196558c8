"""Answering what was asked before the input ended.

The SDK (mcp 2.3, shared/jsonrpc_dispatcher.py) cancels the calls in flight with the end of its input. A client that
writes its requests and closes the pipe (`compute-awareness < requests > answers`) would lose what it waits for.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import (
    CONNECTION_CLOSED,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)

LONGEST_S = 30.0
"""A host that wants the process gone sooner says so by a signal, two seconds after it closed the pipe."""


class DrainingServer(MCPServer[Any]):
    """Over stdio, ends when its input has ended and the calls in flight are answered, or after `LONGEST_S`."""

    async def run_stdio_async(self) -> None:
        """As the SDK's, on streams that know what is in flight."""
        async with stdio_server() as (read, write):
            flying = _InFlight()
            server = self._lowlevel_server  # what runs on given streams; nothing public leads to it
            await server.run(
                _Input(read, flying, LONGEST_S), _Output(write, flying), server.create_initialization_options()
            )


class _InFlight:
    """The requests of both sides that are not answered yet, by their ids."""

    def __init__(self) -> None:
        self.calls: set[Any] = set()
        self.asked: set[Any] = set()
        self.went_out = anyio.Event()

    def came(self, message: JSONRPCMessage) -> None:
        """Takes note of a message of the client's."""
        match message:
            case JSONRPCRequest():
                self.calls.add(message.id)
            case JSONRPCResponse() | JSONRPCError():
                self.asked.discard(message.id)
            case JSONRPCNotification(method="notifications/cancelled"):
                cancelled = (message.params or {}).get("requestId")
                if isinstance(cancelled, str | int):
                    self.calls.discard(cancelled)
            case _:
                pass

    def went(self, message: JSONRPCMessage) -> None:
        """Takes note of a message of the server's."""
        match message:
            case JSONRPCRequest():
                self.asked.add(message.id)
            case JSONRPCResponse() | JSONRPCError():
                self.calls.discard(message.id)
            case _:
                pass
        self.went_out.set()


class _Stream:
    """A stream that is closed with the one within."""

    def __init__(self, inner: Any, flying: _InFlight) -> None:
        self._inner, self._flying = inner, flying

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


class _Output(_Stream):
    async def send(self, item: SessionMessage) -> None:
        # A question counts from before it is sent, since its answer may be read first; an answer only when it is out.
        if isinstance(item.message, JSONRPCRequest):
            self._flying.went(item.message)
        await self._inner.send(item)
        if not isinstance(item.message, JSONRPCRequest):
            self._flying.went(item.message)


class _Input(_Stream):
    """Its end comes when nothing is in flight any more. Until then it answers the server's own questions, which the
    client cannot any more, with an error."""

    def __init__(self, inner: Any, flying: _InFlight, longest_s: float) -> None:
        super().__init__(inner, flying)
        self._longest_s = longest_s
        self._ends: float | None = None

    def __aiter__(self) -> _Input:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def receive(self) -> SessionMessage | Exception:
        if self._ends is None:
            try:
                item: SessionMessage | Exception = await self._inner.receive()
            except anyio.EndOfStream:
                self._ends = anyio.current_time() + self._longest_s
            else:
                if isinstance(item, SessionMessage):
                    self._flying.came(item.message)
                return item
        while self._flying.calls and anyio.current_time() < self._ends:
            if self._flying.asked:
                gone = ErrorData(code=CONNECTION_CLOSED, message="the client's messages have ended")
                return SessionMessage(JSONRPCError(jsonrpc="2.0", id=self._flying.asked.pop(), error=gone))
            self._flying.went_out = anyio.Event()
            with anyio.CancelScope(deadline=self._ends):
                await self._flying.went_out.wait()
        raise anyio.EndOfStream
