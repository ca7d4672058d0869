"""Those who watch studies: one look at the store for all of them, many times a second, and to each what is new."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from tuner.app.service.event_metrics import EventMetrics
from tuner.errors import StoreError
from tuner.study.records import Event
from tuner.study.store import Store

LOOK_S = 0.1
SHARED = 200  # events that are read once for all listeners; who is further behind reads for itself
SILENT_S = 15.0  # after so long without an event a comment is sent, so that nobody between takes the line for dead


class Watchers:
    """The listeners of a process: ``limit`` of them at most, ``each`` of one account. All methods belong to the event
    loop's thread."""

    def __init__(self, store: Store, limit: int, metrics: EventMetrics, each: int = 50) -> None:
        self._store, self._limit, self._each, self._metrics = store, limit, each, metrics
        self._seats = Counter[str]()
        self._news: dict[str, set[asyncio.Event]] = {}
        self._seen: dict[str, int] = {}
        self._recent: dict[str, Sequence[Event]] = {}  # the latest, read once for all who listen
        self._task: asyncio.Task[None] | None = None

    def sit(self, account: str) -> str | None:
        """Take a seat for an account that comes to listen, to be given back by ``rise``; or why there is none."""
        if self._seats.total() >= self._limit:
            return "too many listen already"
        if account and self._seats[account] >= self._each:
            return f"this token has {self._each} listeners already, which is the most"
        self._seats[account] += 1
        return None

    def rise(self, account: str) -> None:
        """Give a seat back."""
        self._seats[account] -= 1
        self._seats += Counter()  # without those that are all free

    def close(self) -> None:
        """End the looking; what listens ends with its connection."""
        if self._task is not None:
            self._task.cancel()

    async def events(self, study: str, after: int) -> AsyncIterator[Event | None]:
        """The study's events behind that number as they come; None after a silence. Never ends by itself."""
        news, live = asyncio.Event(), False  # not live: what is read now happened before anybody listened
        self._news.setdefault(study, set()).add(news)
        self._metrics.listeners.inc()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            while True:
                news.clear()
                found = self._shared(study, after)
                if found is None:
                    found = await run_in_threadpool(self._store.events.after, study, after)
                for event in found:
                    after = event.number
                    if live:
                        self._metrics.handed_over(time.time() - event.at)
                    yield event
                live = live or not found
                if not found and not await _set_within(news, SILENT_S):
                    yield None
        finally:
            self._metrics.listeners.dec()
            self._news[study].discard(news)
            if not self._news[study]:
                del self._news[study]
                self._seen.pop(study, None)
                self._recent.pop(study, None)

    def _shared(self, study: str, after: int) -> Sequence[Event] | None:
        """What was read for all listeners, behind that number; None where that is not all."""
        recent = self._recent.get(study, ())
        if not recent or recent[0].number > after + 1:
            return None
        return [event for event in recent if event.number > after]

    async def _look(self) -> None:
        while self._news:
            with suppress(StoreError):  # the next look makes up for it
                latest = await run_in_threadpool(self._store.events.latest, list(self._news))
                for study, number in latest.items():
                    if self._seen.get(study) != number and study in self._news:
                        behind = max(self._seen.get(study, 0), number - SHARED)
                        self._recent[study] = await run_in_threadpool(self._store.events.after, study, behind)
                        if study not in self._news:  # the last of its listeners has left meanwhile
                            self._recent.pop(study)
                            continue
                        self._seen[study] = number
                        for news in self._news[study]:
                            news.set()
            await asyncio.sleep(LOOK_S)


async def _set_within(news: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(news.wait(), seconds)
    except TimeoutError:
        return False
    return True
