"""How fast a service answers when many ask, how late its events are, and what memory it takes.

    python -m tests.benchmarks.service_reads [--store URL] [--studies 10000] [--seconds 10] [--listeners 200]

Prints percentiles of: `GET` of a study with 200 trials, by 50 clients of which each asks again a quarter of a second
after its answer, and by 50 that ask again at once, so that the service is never idle; `POST /v1/plans` of Qwen3-32B on
16 H100, one after the other; an event, from just before it is kept until each of the listeners has its line; and the
memory of the service, idle and after 500 studies were queued, read, watched and deleted. ``--store`` is an empty
PostgreSQL database; default: SQLite. The service is a process of its own, without limits on the rates of tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.fakes import document, make_request
from tests.service_store import LONG, fill
from tuner.study.orders import Terms, Wish
from tuner.study.store import Store

CLIENTS, AGAIN_S = 50, 0.25
PLAN = {
    "model": "Qwen/Qwen3-32B", "cluster.gpu": "h100_sxm", "cluster.nodes": 2, "cluster.gpus_per_node": 8,
    "space": "dense",
}  # fmt: skip


def serve(url: str, port: int, out: Path) -> None:
    """The service, without limits on rates; to the end of this process."""
    from tuner.app.service.application import application
    from tuner.app.service.server import Server
    from tuner.app.service.service import Limits, Settings
    from tuner.trial.cancel import CancelHandle

    limits = Limits(requests_per_s=1e9, burst=1e9, open_studies=10**9)
    app = application(Store(url), Settings(("simulated",), out, (), limits), open_to_all=True)
    Server(app, socket.create_server(("127.0.0.1", port), backlog=2048)).run(CancelHandle())


async def ask(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], method: str, path: str, body: bytes = b""
) -> tuple[int, bytes]:
    """One request on a connection that stays; (status, body)."""
    reader, writer = streams
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    return int(answer.split(b" ", 2)[1]), await reader.readexactly(length)


async def reads(port: int, seconds: float, again_s: float) -> list[float]:
    """Milliseconds of each read of the long study, by all clients."""
    found: list[float] = []

    async def client(number: int) -> None:
        streams = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(again_s * number / CLIENTS)
        while time.perf_counter() < until:
            began = time.perf_counter()
            status, _ = await ask(streams, "GET", f"/v1/studies/{LONG}")
            assert status == 200, status
            found.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(again_s)
        streams[1].close()

    until = time.perf_counter() + seconds
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return found


async def plans(port: int, seconds: float) -> list[float]:
    """Milliseconds of each plan; the first, which warms up, is left out."""
    body = json.dumps({"request": document(PLAN)}).encode()
    streams, found = await asyncio.open_connection("127.0.0.1", port), []
    until = time.perf_counter() + seconds
    while len(found) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        status, answer = await ask(streams, "POST", "/v1/plans", body)
        assert status == 200, answer[:300]
        found.append(1000 * (time.perf_counter() - began))
    return found[1:]


async def events(port: int, store: Store, seconds: float, listeners: int) -> list[float]:
    """Milliseconds from the telling of each event to each listener's reading of it."""
    found: list[float] = []
    ready = asyncio.Semaphore(0)

    async def listen() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET /v1/studies/{LONG}/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {last}\r\n\r\n".encode()
        )
        await reader.readuntil(b"retry: 2000")
        ready.release()
        while True:
            line = await reader.readuntil(b"\n")
            if line.startswith(b"data: "):
                told = json.loads(line[6:])
                if told.get("over"):
                    writer.close()
                    return
                found.append(1000 * (time.time() - told["at"]))

    last = store.events.latest([LONG]).get(LONG, 0)
    tasks = [asyncio.create_task(listen()) for _ in range(listeners)]
    for _ in tasks:
        await ready.acquire()
    await asyncio.sleep(1)
    rng = np.random.default_rng(0)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        await asyncio.sleep(float(rng.uniform(0.3, 0.7)))
        await asyncio.to_thread(lambda: store.events.tell(LONG, "launching", {"at": time.time()}))
    await asyncio.to_thread(store.events.tell, LONG, "launching", {"over": True})
    await asyncio.gather(*tasks)
    return found


async def turnover(port: int, store: Store, studies: int) -> None:
    """Queue, read, list, cancel and delete so many studies."""
    streams = await asyncio.open_connection("127.0.0.1", port)
    for number in range(studies):
        name = f"turned-over-{number}"
        store.orders.submit(name, make_request(), Terms("", "simulated", seed=number))
        for path in (
            f"/v1/studies/{name}",
            "/v1/studies",
            f"/v1/studies/{LONG}/decision" if number % 50 == 0 else "/healthz",
        ):
            assert (await ask(streams, "GET", path))[0] == 200
        store.orders.ask(name, Wish.CANCEL)
        assert (await ask(streams, "DELETE", f"/v1/studies/{name}"))[0] == 204


def memory_mb(pid: int) -> float:
    """What a process holds of its own and shared memory, MB."""
    kb = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(kb.split()[1]) / 1000


def shown(name: str, found: list[float], target_ms: float) -> str:
    """A row."""
    p50, p99 = np.percentile(found, [50, 99])
    return f"| {name} | {len(found):,} | {p50:.1f} | {p99:.1f} | {target_ms:g} |"


def started(url: str, out: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The service's process and port, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "tests.benchmarks.service_reads", "--store", url, "--serve", str(port)]
    process = subprocess.Popen([*words, "--out", str(out)])
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, port
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the service does not answer")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store")
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.store, options.serve, options.out)
        return
    with tempfile.TemporaryDirectory(prefix="parlay-") as scratch:
        url = options.store or f"sqlite:///{scratch}/store.db"
        store = Store(url)
        fill(store, Path(scratch), options.studies)
        process, port = started(url, Path(scratch))
        try:
            rows = measured(process.pid, port, store, options.seconds, options.listeners)
        finally:
            process.kill()
            process.wait()
        store.close()
    kind = "PostgreSQL" if options.store else "SQLite"
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, {time.strftime('%F', time.gmtime())}"
    print(f"{kind}, {options.studies:,} studies in the store; {machine}\n")
    print("\n".join(rows))


def measured(pid: int, port: int, store: Store, seconds: float, listeners: int) -> list[str]:
    """All rows."""
    began_mb = memory_mb(pid)
    rows = ["| what | asked | p50 ms | p99 ms | target ms |", "|---|---|---|---|---|"]
    asyncio.run(reads(port, 1, AGAIN_S))
    paced, at_once = (asyncio.run(reads(port, seconds, again_s)) for again_s in (AGAIN_S, 0.0))
    rows.append(shown(f"a study with 200 trials, {CLIENTS} clients, {AGAIN_S:g} s between", paced, 50))
    rows.append(shown(f"the same, nothing between ({len(at_once) / seconds:.0f} requests/s)", at_once, 50))
    rows.append(shown("a plan of Qwen3-32B on 16 H100", asyncio.run(plans(port, seconds)), 150))
    heard = asyncio.run(events(port, store, seconds, listeners))
    rows.append(shown(f"an event to {listeners} listeners", heard, 250))
    warm_mb = memory_mb(pid)
    asyncio.run(turnover(port, store, 500))
    after_mb = memory_mb(pid)
    memory = f"{began_mb:.0f} MB idle, {warm_mb:.0f} MB after the above, {after_mb:.0f} MB after 500 studies more"
    return [*rows, "", f"Memory of the service: {memory} ({after_mb / warm_mb - 1:+.0%})"]


if __name__ == "__main__":
    main()
