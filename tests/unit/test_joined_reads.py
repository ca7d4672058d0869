"""Reads that several ask for at once are done once, and nobody is told less than was written before he asked."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import make_request
from tests.service_app import client_of
from tuner.app.service.joined_reads import JoinedReads
from tuner.study.orders import Terms, Wish
from tuner.study.store import Store

_WRITER = """
import sys
from tuner.study.store import Store
store = Store(sys.argv[1])
for line in sys.stdin:
    print(store.events.tell("watched", "launching", {}).number, flush=True)
"""


class Cell:
    """Something that is written while others read it."""

    def __init__(self) -> None:
        self.version, self.reads, self.at_once, self._lock = 0, 0, 0, threading.Lock()

    def read(self, key: str) -> int:
        with self._lock:
            self.reads, self.at_once = self.reads + 1, self.at_once + 1
            found = self.version
        assert self.at_once == 1
        time.sleep(0)
        with self._lock:
            self.at_once -= 1
        return found


@pytest.mark.slow
@given(st.lists(st.sampled_from(["ask", "write", "turn", "leave"]), max_size=30))
def test_no_answer_is_older_than_what_was_written_before_it_was_asked_for(steps):
    async def play() -> None:
        cell = Cell()
        reads, asked = JoinedReads(cell.read), []
        for step in steps:
            if step == "ask":
                asked.append((cell.version, asyncio.create_task(reads.of("key"))))
                await asyncio.sleep(0)
            elif step == "write":
                cell.version += 1
            elif step == "leave" and asked:
                asked[-1][1].cancel()
            else:
                await asyncio.sleep(0)
        for before, task in asked:
            await asyncio.wait([task])
            assert task.cancelled() or task.result() >= before
        assert cell.reads <= len(asked)

    asyncio.run(play())


def test_who_asks_while_a_read_runs_shares_the_next_one():
    async def play() -> tuple[list[int], int]:
        cell, begun, go_on = Cell(), threading.Event(), threading.Event()

        def slow(key: str) -> int:
            found = cell.read(key)
            begun.set()
            go_on.wait(10)
            return found

        reads = JoinedReads(slow)
        first = asyncio.create_task(reads.of("key"))
        await asyncio.to_thread(begun.wait, 10)
        cell.version = 1
        others = [asyncio.create_task(reads.of("key")) for _ in range(20)]
        await asyncio.sleep(0)
        go_on.set()
        return [await first, *[await other for other in others]], cell.reads

    assert asyncio.run(play()) == ([0] + [1] * 20, 2)


def test_an_error_is_told_to_all_who_asked_and_the_next_read_is_another():
    async def play() -> list[object]:
        failing = iter([True, False])

        def read(key: str) -> str:
            if next(failing):
                raise KeyError(key)
            return "found"

        reads = JoinedReads(read)
        both = await asyncio.gather(reads.of("key"), reads.of("key"), return_exceptions=True)
        return [*map(type, both), await reads.of("key")]

    assert asyncio.run(play()) == [KeyError, KeyError, "found"]


def test_an_answer_has_a_tag_and_is_not_sent_twice_while_it_holds(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    store.orders.submit("watched", make_request(), Terms("", "simulated", seed=0))
    with client_of(store, tmp_path) as client:
        first = client.get("/v1/studies/watched")
        tag = first.headers["etag"]
        assert first.headers["cache-control"] == "private, no-cache"
        for condition in (tag, f'W/{tag}, "other"', f'"other", {tag}', "*"):
            again = client.get("/v1/studies/watched", headers={"If-None-Match": condition})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert again.headers["x-content-type-options"] == "nosniff"
        assert client.get("/v1/studies/watched", headers={"If-None-Match": '"other"'}).content == first.content
        store.orders.ask("watched", Wish.PAUSE)
        changed = client.get("/v1/studies/watched", headers={"If-None-Match": tag})
        assert changed.json()["state"] == "paused"
        store.delete_study("watched")
        assert client.get("/v1/studies/watched", headers={"If-None-Match": tag}).status_code == 404
    store.close()


@pytest.mark.slow
def test_whoever_saw_a_write_of_another_process_is_never_told_less(url, tmp_path):
    store = Store(url)
    store.orders.submit("watched", make_request(), Terms("", "simulated", seed=0))
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    seen = 0
    with client_of(store, tmp_path, requests_per_s=1e6, burst=1e6) as client, ThreadPoolExecutor(8) as pool:

        def look() -> tuple[int, int]:
            before = seen
            return before, client.get("/v1/studies/watched").json()["last_event"]

        looks = []
        for _ in range(100):
            looks += [pool.submit(look) for _ in range(3)]
            writer.stdin.write("tell\n")
            seen = int(writer.stdout.readline())
            looks += [pool.submit(look) for _ in range(3)]
        told = [one.result() for one in looks]
    writer.stdin.close()
    writer.wait()
    store.close()
    assert all(found >= before for before, found in told)
    assert told[-1][1] == seen
