"""Long calls are worked on a few at once: the others wait, are answered in turn, and may be given up meanwhile."""

from __future__ import annotations

import threading

import anyio
import pytest

from compute_awareness.mcp_server import looking
from compute_awareness.mcp_server.looking import in_thread

AT_ONCE = looking._AT_ONCE  # pyright: ignore[reportPrivateUsage]


class Work:
    """Calls that do not end before they may; how many were worked on side by side."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.started = threading.Semaphore(0)
        self.running = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, number: int) -> int:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.started.release()
        assert self.go_on.wait(60)
        with self._lock:
            self.running -= 1
        return number


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_few_at_once_and_all_are_answered(rounds: int) -> None:
    """Each event loop has turns of its own."""
    for _ in range(rounds):
        work, answers = Work(), list[int]()

        async def one(number: int, work: Work = work, answers: list[int] = answers) -> None:
            answers.append(await in_thread(lambda: work(number), "working"))

        async def many(work: Work = work, one=one) -> None:
            async with anyio.create_task_group() as group:
                for number in range(3 * AT_ONCE):
                    group.start_soon(one, number)
                for _ in range(AT_ONCE):
                    assert await anyio.to_thread.run_sync(work.started.acquire, True, 60)
                assert not await anyio.to_thread.run_sync(work.started.acquire, True, 0.2), "a fifth was begun"
                work.go_on.set()

        anyio.run(many)
        assert sorted(answers) == list(range(3 * AT_ONCE))
        assert work.most == AT_ONCE


def test_a_call_that_waits_can_be_given_up() -> None:
    work, begun = Work(), []

    async def waiting(scope: anyio.CancelScope) -> None:
        with scope:
            await in_thread(lambda: begun.append(1), "waiting")

    async def many() -> None:
        async with anyio.create_task_group() as group:
            for number in range(AT_ONCE):
                group.start_soon(in_thread, lambda number=number: work(number), "working")
            for _ in range(AT_ONCE):
                assert await anyio.to_thread.run_sync(work.started.acquire, True, 60)
            scope = anyio.CancelScope()
            group.start_soon(waiting, scope)
            await anyio.sleep(0.1)
            scope.cancel()
            await anyio.sleep(0)
            work.go_on.set()
        assert await in_thread(lambda: 7, "after it") == 7

    anyio.run(many)
    assert not begun
