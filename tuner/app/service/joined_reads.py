"""Reads of the store that several ask for at once, done once for all of them.

Each answer is of a read that began after it was asked for, so that nobody is told less than was written before he
asked, by whichever process. Nothing is kept for later: what is not asked for at once is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

Key = TypeVar("Key")
Found = TypeVar("Found")


class JoinedReads(Generic[Key, Found]):
    """Does ``read`` in a thread, for one key never twice at a time. Belongs to the event loop's thread."""

    def __init__(self, read: Callable[[Key], Found]) -> None:
        self._read = read
        self._next: dict[Key, asyncio.Task[Found]] = {}  # has not begun: whoever asks now may share it
        self._now: dict[Key, asyncio.Task[Found]] = {}  # has begun: what it finds may be older than who asks now

    async def of(self, key: Key) -> Found:
        """What ``read`` finds from now on; raises what it raises."""
        shared = self._next.get(key)
        if shared is None:
            shared = self._next[key] = asyncio.create_task(self._begin(key))
            shared.add_done_callback(_seen)
        return await asyncio.shield(shared)  # who leaves does not end it for the others

    async def _begin(self, key: Key) -> Found:
        while (before := self._now.get(key)) is not None:
            await asyncio.wait([before])
        self._now[key] = self._next.pop(key)
        try:
            return await run_in_threadpool(self._read, key)
        finally:
            del self._now[key]


def _seen(task: asyncio.Task[Found]) -> None:
    """Look at the outcome, which may be an error that nobody has waited for to the end."""
    if not task.cancelled():
        task.exception()
