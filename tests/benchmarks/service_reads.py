"""How fast a service answers when many ask, how late its events are, and what memory it takes.

    python -m tests.benchmarks.service_reads [--store sqlite] [--store postgresql] [--studies 10000] [--seconds 10]

Prints, for SQLite and for a PostgreSQL that it starts (``--store`` chooses; also the URL of an empty database):
percentiles of `GET` of a study with 200 trials, by 50 clients that each ask four times a second, and by 50 that ask
again at once, so that the service is never idle; of `POST /v1/plans` of Qwen3-32B on 16 H100, one after the other, each
with another SLO; of an event, from just before it is kept until each of the listeners has its line; and the memory of
the service, idle and after 500 studies were queued, read, watched and deleted.

The service is a process of its own, which checks a token with every request, without limits on rates and listeners. A
client with a timetable counts from when it was to ask, so that a late answer is not hidden by the requests that it
held back. Beside the times stand the processor's milliseconds per answer, of the service and of the clients, which
are one other process: where other work shares the machine, they say more than the percentiles."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fakes import document, make_request
from tests.postgres import new_database, running_server
from tests.service_store import LONG, TRIALS_OF_LONG, fill
from tuner.study.accounts import Scope
from tuner.study.orders import Terms, Wish
from tuner.study.store import Store

CLIENTS, EVERY_S = 50, 0.25
STORES = ("sqlite", "postgresql")
PLAN = {
    "model": "Qwen/Qwen3-32B", "cluster.gpu": "h100_sxm", "cluster.nodes": 2, "cluster.gpus_per_node": 8,
    "space": "dense",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A service under test: its process, where it listens, and a token of it."""

    pid: int
    port: int
    token: str

    def head(self, method: str, path: str, *more: str) -> bytes:
        """The head of a request, up to its last line."""
        lines = (f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {self.token}", *more)
        return "".join(f"{line}\r\n" for line in lines).encode()

    @property
    def processor_s(self) -> float:
        """What its process has taken of the processor."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_mb(self) -> float:
        """What it holds of its own and shared memory, MB."""
        kb = next(row for row in Path(f"/proc/{self.pid}/status").read_text().splitlines() if row.startswith("VmRSS"))
        return int(kb.split()[1]) / 1000


def serve(url: str, port: int, out: Path) -> None:
    """The service, without limits on rates; to the end of this process."""
    from tuner.app.service.application import application
    from tuner.app.service.server import Server
    from tuner.app.service.service import Limits, Settings
    from tuner.trial.cancel import CancelHandle

    limits = Limits(requests_per_s=1e9, burst=1e9, open_studies=10**9, listeners=10**9, listeners_each=10**9)
    app = application(Store(url), Settings(("simulated",), out, (), limits), open_to_all=False)
    Server(app, socket.create_server(("127.0.0.1", port), backlog=2048)).run(CancelHandle())


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(streams: Streams, head: bytes, body: bytes = b"") -> tuple[int, bytes]:
    """One request on a connection that stays; (status, body)."""
    reader, writer = streams
    writer.write(head + f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    return int(answer.split(b" ", 2)[1]), await reader.readexactly(length)


async def reads(service: Asked, seconds: float, every_s: float) -> list[float]:
    """Milliseconds of each read of the long study, by all clients, from when each was to ask; every 0 s: at once."""
    found: list[float] = []
    head = service.head("GET", f"/v1/studies/{LONG}")

    async def client(number: int) -> None:
        streams = await asyncio.open_connection("127.0.0.1", service.port)
        due = time.perf_counter() + every_s * number / CLIENTS
        while due < until:
            await asyncio.sleep(due - time.perf_counter())
            status, _ = await ask(streams, head)
            assert status == 200, status
            now = time.perf_counter()
            found.append(1000 * (now - due))
            due = due + every_s if every_s else now
        streams[1].close()

    until = time.perf_counter() + seconds
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return found


async def plans(service: Asked, seconds: float) -> list[float]:
    """Milliseconds of each plan, no two alike; the first, which warms up, is left out."""
    head, found = service.head("POST", "/v1/plans"), list[float]()
    streams = await asyncio.open_connection("127.0.0.1", service.port)
    until = time.perf_counter() + seconds
    while len(found) < 3 or time.perf_counter() < until:
        slo = [{"metric": "ttft", "percentile": 99, "ms": 500 + len(found) / 8}]
        body = json.dumps({"request": document(PLAN) | {"slo": slo}}).encode()
        began = time.perf_counter()
        status, answer = await ask(streams, head, body)
        assert status == 200, answer[:300]
        found.append(1000 * (time.perf_counter() - began))
    return found[1:]


async def events(service: Asked, store: Store, seconds: float, listeners: int) -> list[float]:
    """Milliseconds from the telling of each event to each listener's reading of it."""
    found: list[float] = []
    ready = asyncio.Semaphore(0)

    async def listen() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(service.head("GET", f"/v1/studies/{LONG}/events", f"Last-Event-ID: {last}") + b"\r\n")
        status = await reader.readline()
        assert b" 200 " in status, status  # refused, it would wait for ever
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


async def turnover(service: Asked, store: Store, studies: int) -> None:
    """Queue, read, list, cancel and delete so many studies."""
    streams = await asyncio.open_connection("127.0.0.1", service.port)
    for number in range(studies):
        name = f"turned-over-{number}"
        store.orders.submit(name, make_request(), Terms("", "simulated", seed=number))
        third = f"/v1/studies/{LONG}/decision" if number % 50 == 0 else "/healthz"
        for path in (f"/v1/studies/{name}", "/v1/studies", third):
            assert (await ask(streams, service.head("GET", path)))[0] == 200
        store.orders.ask(name, Wish.CANCEL)
        assert (await ask(streams, service.head("DELETE", f"/v1/studies/{name}")))[0] == 204


@contextmanager
def started(url: str, out: Path, token: str) -> Iterator[Asked]:
    """The service, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "tests.benchmarks.service_reads", "--store", url, "--serve", str(port)]
    process = subprocess.Popen([*words, "--out", str(out)])
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise TimeoutError("the service does not answer") from None
                time.sleep(0.1)
        yield Asked(process.pid, port, token)
    finally:
        process.kill()
        process.wait()


def measured(service: Asked, store: Store, seconds: float, listeners: int) -> Iterator[str]:
    """All rows, each as soon as it is known."""

    def row(name: str, target_ms: float, measure: Callable[[], list[float]]) -> str:
        began_s, own_s = service.processor_s, time.process_time()
        found = measure()
        each = [1000 * taken / len(found) for taken in (service.processor_s - began_s, time.process_time() - own_s)]
        p50, p99 = np.percentile(found, [50, 99])
        held = "yes" if p99 <= target_ms else "no"
        times = f"{len(found):,} | {p50:.1f} | {p99:.1f} | {target_ms:g} | {held}"
        return f"| {name} | {times} | {each[0]:.2f} | {each[1]:.2f} |"

    began_mb = service.memory_mb
    yield "| what | answers | p50 ms | p99 ms | target ms | held | service's CPU ms each | clients' CPU ms each |"
    yield "|---|---|---|---|---|---|---|---|"
    asyncio.run(reads(service, 1, EVERY_S))
    a_study = f"a study with {TRIALS_OF_LONG} trials, {CLIENTS} clients, "
    yield row(f"{a_study}each every {EVERY_S:g} s", 50, lambda: asyncio.run(reads(service, seconds, EVERY_S)))
    yield row(f"{a_study}each again at once", 50, lambda: asyncio.run(reads(service, seconds, 0.0)))
    yield row("a plan of Qwen3-32B on 16 H100", 150, lambda: asyncio.run(plans(service, seconds)))
    told = f"an event to {listeners} listeners"
    yield row(told, 250, lambda: asyncio.run(events(service, store, seconds, listeners)))
    warm_mb = service.memory_mb
    asyncio.run(turnover(service, store, 500))
    after_mb = service.memory_mb
    yield f"\nMemory: {began_mb:.0f} MB idle (target 250), {warm_mb:.0f} MB after the above, {after_mb:.0f} MB after"
    yield f"500 studies more ({after_mb / warm_mb - 1:+.0%}, target ±10 %)."


@contextmanager
def empty_store(kind: str, scratch: Path) -> Iterator[str]:
    """The URL of an empty database of that kind; a URL is one itself."""
    if kind == "postgresql":
        with running_server(scratch / "postgresql") as server:
            yield new_database(server, "benchmark")
    else:
        yield f"sqlite:///{scratch}/store.db" if kind == "sqlite" else kind


def report(kind: str, studies: int, seconds: float, listeners: int) -> None:
    """Print the table of one store."""
    with tempfile.TemporaryDirectory(prefix="parlay-") as scratch, empty_store(kind, Path(scratch)) as url:
        store = Store(url)
        fill(store, Path(scratch), studies)
        _, token = store.accounts.create("benchmark", Scope.ADMIN)
        machine = f"{platform.machine()}, {os.cpu_count()} CPUs, {time.strftime('%F', time.gmtime())}"
        print(f"\n{kind.partition(':')[0]}, {studies:,} studies in the store; {machine}\n", flush=True)
        with started(url, Path(scratch), token) as service:
            for row in measured(service, store, seconds, listeners):
                print(row, flush=True)
        store.close()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="append", help="sqlite, postgresql or a URL; default: both kinds")
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.store[0], options.serve, options.out)
        return
    gc.freeze()  # or a collection over all modules would be a pause of the clients, counted as the service's
    for kind in options.store or STORES:
        report(kind, options.studies, options.seconds, options.listeners)


if __name__ == "__main__":
    main()
