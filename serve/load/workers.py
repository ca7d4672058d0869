"""One window of load from several processes, where one core cannot send enough.

Each process has its share of the schedule and opens the window at the same instant of the one clock that all processes
of a machine share. Samples come back while the window runs, so that nothing is left to carry at its end. A process
that dies is an error, never a lighter load; whatever ends the run ends the processes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module, util
from multiprocessing.connection import Connection as Pipe
from typing import Any, TypeVar, cast

from serve.load.client import LoadRun, Then
from serve.load.endpoint import Endpoint
from serve.load.request_sample import Sample
from serve.load.request_spec import Call, OpenCall, Timeouts
from serve.load.sample_arrays import PackedSamples
from serve.load.saturation import ClientLoad
from tuner.errors import BadInput, ParlayError

START_AHEAD_S = 0.05
REPORT_EVERY_S = 0.25
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker sends: its calls by rising intended time, and what follows from an answer."""

    calls: Iterable[Call]
    then: Then | None = None


Plan = Callable[[int, int], Share]
"""(worker, workers) → its share, made in the worker: it must pickle, as functions of a module and partials of them do.
No two calls of all shares may have one index, those that ``then`` makes included."""


class WorkerDied(ParlayError):
    """A worker process ended before its share was done, or could not do it."""


@dataclass(frozen=True, slots=True)
class _Report:
    """What a worker tells while it runs; ``load`` only at its end."""

    packed: PackedSamples
    sent: int
    open: tuple[OpenCall, ...]
    load: ClientLoad | None = None


class WorkerRun:
    """One window of load by ``workers`` processes; reads like a ``LoadRun``, its counters a quarter second behind."""

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts | float, plan: Plan, workers: int) -> None:
        if workers < 1:
            raise BadInput("workers", workers, "at least 1")
        self.endpoint = endpoint
        self.timeouts = timeouts if isinstance(timeouts, Timeouts) else Timeouts(timeouts)
        self.samples: list[Sample] = []
        self.client_load: ClientLoad | None = None
        self._plan = plan
        self._start_s: float | None = None
        self._reports: dict[int, _Report] = {}
        self._pipes: list[Pipe] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._names = range(workers)

    @property
    def sent(self) -> int:
        """Requests sent by all workers."""
        return sum(report.sent for report in self._reports.values())

    @property
    def in_flight(self) -> int:
        """Requests sent and not yet ended."""
        return sum(len(report.open) for report in self._reports.values())

    @property
    def elapsed_s(self) -> float:
        """Seconds since the window opened; 0 before."""
        return 0.0 if self._start_s is None else max(0.0, time.perf_counter() - self._start_s)

    def open_calls(self) -> list[OpenCall]:
        """The requests in flight, oldest first."""
        calls = (call for report in self._reports.values() for call in report.open)
        return sorted(calls, key=lambda call: call.sent_s)

    def stop(self, *, cut_off: bool = False) -> None:
        """End the window early: nothing more is sent. What is in flight is waited for, or with ``cut_off`` dropped."""
        for pipe in self._pipes:
            with suppress(OSError):  # it has just ended by itself
                pipe.send(cut_off)

    async def run(self) -> list[Sample]:
        """Start the processes, run the window in all of them, and return all samples in order of their index.

        Raises WorkerDied when a process fails. When this ends, for whatever reason, no process is left.
        """
        try:
            with _deaf_children():
                for worker in self._names:
                    self._start(worker)
            await _all(self._heard(worker) for worker in self._names)  # they are ready
            self._start_s = time.perf_counter() + START_AHEAD_S
            for pipe in self._pipes:
                pipe.send(self._start_s)
            loads = await _all(self._collect(worker) for worker in self._names)
        finally:
            self._end()
        self.client_load = ClientLoad.merged(loads)
        return sorted(self.samples, key=lambda sample: sample.index)

    def _start(self, worker: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would carry the threads' locks along
        ours, theirs = context.Pipe()
        order = (self.endpoint, self.timeouts, self._plan, worker, len(self._names), theirs)
        process = context.Process(target=_work, args=order, daemon=True, name=f"parlay-load-{worker}")
        self._pipes.append(ours)
        self._processes.append(process)
        process.start()
        theirs.close()

    async def _collect(self, worker: int) -> ClientLoad:
        while True:
            report = cast(_Report, await self._heard(worker))
            self._reports[worker] = report
            self.samples += report.packed.samples()
            if report.load is not None:
                return report.load

    async def _heard(self, worker: int) -> object:
        """The next message of a worker; WorkerDied when there is none, or it is an error."""
        pipe = self._pipes[worker]
        await _readable(pipe)
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            process = self._processes[worker]
            process.join(1)
            raise WorkerDied(f"load worker {worker} died, exit code {process.exitcode}") from None
        if isinstance(message, str):
            raise WorkerDied(f"load worker {worker} failed: {message}")
        return message

    def _end(self) -> None:
        for pipe in self._pipes:
            pipe.close()  # a worker that still runs ends with its pipe; one that hangs is killed
        for process in self._processes:
            if process.pid is None:  # never started
                continue
            process.join(0.5)
            if process.is_alive():
                process.kill()
                process.join()


async def _all(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, or the first error, with the others cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, which is the parent's to handle: their pipe closes then."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _readable(pipe: Pipe) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def readable() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(pipe.fileno(), readable)
    try:
        await ready
    finally:
        loop.remove_reader(pipe.fileno())


def run_fast(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` on uvloop where it is installed (it has no Windows wheel), else on asyncio's own loop."""
    factory = import_module("uvloop").new_event_loop if util.find_spec("uvloop") is not None else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


# -- in the worker


def _work(endpoint: Endpoint, timeouts: Timeouts, plan: Plan, worker: int, workers: int, pipe: Pipe) -> None:
    try:
        share = plan(worker, workers)
        run = LoadRun(endpoint, timeouts)
        pipe.send(worker)
        start_s = pipe.recv()
        run_fast(_worked(run, share, start_s, pipe))
    except (EOFError, BrokenPipeError, ConnectionResetError, asyncio.CancelledError):
        return  # the parent has ended the run
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


async def _worked(run: LoadRun, share: Share, start_s: float, pipe: Pipe) -> None:
    loop = asyncio.get_running_loop()
    load = loop.create_task(run.run(share.calls, share.then, start_s))

    def told() -> None:
        try:
            run.stop(cut_off=pipe.recv())
        except (EOFError, OSError):
            loop.remove_reader(pipe.fileno())
            load.cancel()

    loop.add_reader(pipe.fileno(), told)
    reported = 0
    try:
        while not load.done():
            await asyncio.wait({load}, timeout=REPORT_EVERY_S)
            fresh = run.samples[reported:]
            reported += len(fresh)
            load_seen = run.client_load if load.done() else None
            if load.done():
                load.result()
            pipe.send(_Report(PackedSamples.of(fresh), run.sent, tuple(run.open_calls()), load_seen))
    finally:
        loop.remove_reader(pipe.fileno())
        load.cancel()
