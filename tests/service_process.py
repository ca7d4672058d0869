"""A service as processes that can be killed: ``parlay serve`` with workers, on studies of simulated clusters."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from tests.fakes import make_request
from tuner.app.service.worker import Worker, WorkerSettings
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Terms
from tuner.study.records import Snapshot
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle
from tuner.trial.ledger import Outcome

# Without a pace, one trial runs at a time, so that a study always goes one way. Each has a seed of its own: none
# learns of another.
CHANGES = {
    "space": {"tp": [1, 2], "dp": [1, 2], "max_num_seqs": [32, 64, 128, 256], "executor": ["mp"]},
    "objective": "min_latency", "load.rates_req_per_s": [60], "budget.minutes": 1e9,
}  # fmt: skip
OPEN = (StudyState.QUEUED, StudyState.RUNNING)


def names(count: int) -> list[str]:
    """Of so many studies."""
    return [f"study-{number}" for number in range(count)]


def submit(store: Store, count: int, launches: int) -> None:
    """Queue so many studies."""
    request = make_request({**CHANGES, "budget.launches": launches})
    for number, name in enumerate(names(count)):
        store.orders.submit(name, request, Terms("", "simulated", seed=number))


def undisturbed(folder: Path, count: int, launches: int) -> dict[str, Essence]:
    """What the studies come to where nobody is killed."""
    store = Store(f"sqlite:///{folder}/undisturbed.db")
    try:
        submit(store, count, launches)
        Worker(store, WorkerSettings(("simulated",), None, folder / "out"), CancelHandle()).run(until_idle=True)
        return {name: essence(store, name) for name in names(count)}
    finally:
        store.close()


@dataclass(frozen=True)
class Essence:
    """All of a decision but names and times."""

    winner: str | None
    trials: tuple[tuple[object, ...], ...]
    why: str

    def kept_by(self, other: Essence) -> bool:
        """Whether a study whose processes were killed came to the same, in all that it did; or, where an engine that
        died with its process got no second window, in all that it did before that, and in the winner."""
        for mine, its in zip_longest(self.trials, other.trials):
            if mine is not None and mine[1] and (its is None or mine[:2] != its[:2]):
                return self.winner == other.winner
            if mine != its:
                return False
        return self == other


def essence(store: Store, name: str) -> Essence:
    """What a study came to."""
    decision = store.decision(name)
    assert decision is not None, f"{name} is {store.study(name).state.value}: {store.orders.order(name).problem}"
    trials = tuple((str(t.deployment), t.repeat, t.state, t.purpose, t.steps, t.failure) for t in decision.trials)
    return Essence(decision.winner and str(decision.winner.deployment), trials, decision.why)


def launched_twice(found: Snapshot) -> list[str]:
    """Deployments whose launch is not accounted for: it ended but is no trial's, or nobody knows how it ended."""
    ended = [entry.app for entry in found.entries if entry.outcome is Outcome.ENDED]
    running = [entry.app for entry in found.entries if entry.outcome is Outcome.RUNNING]
    return running + ended[len(found.finished) :]


def lost(found: Snapshot) -> int:
    """Launches that were in flight when their worker was killed."""
    return sum(entry.outcome is Outcome.LOST for entry in found.entries)


@dataclass
class KilledService:
    """The service on a store, started again whenever it was killed."""

    url: str
    out: Path
    workers: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    killed: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Begin, or begin again."""
        words = [sys.executable, "-m", "tuner.app.cli.commands", "serve", "--store", self.url, "--out", str(self.out)]
        words += ["--port", "0", "--workers", str(self.workers), "--launchers", "simulated", "--no-auth"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def kill(self, chance: random.Random) -> bool:
        """Kill a worker, which the service starts again, and the next time the service itself, to start it again.

        False where there is no worker yet.
        """
        assert self.process is not None
        if len(self.killed) % 2:
            self.killed.append("service")
            self.process.kill()
            self.process.wait()
            self.start()
            return True
        found = self.processes("worker", self.process.pid)
        if found:
            self.killed.append("worker")
            os.kill(chance.choice(found), signal.SIGKILL)
        return bool(found)

    def processes(self, command: str, parent: int | None = None) -> list[int]:
        """Those of a command on this folder, of all services or of one."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    words = (folder / "cmdline").read_bytes().decode().split("\0")
                except OSError:
                    continue
                if str(self.out) in words and command in words and (parent is None or str(parent) in words):
                    found.append(int(folder.name))
        return found

    def disturb(
        self, store: Store, count: int, kills: int, every_s: tuple[float, float], seed: int, most_s: float
    ) -> None:
        """Kill at random instants until the studies have ended."""
        chance, until = random.Random(seed), time.monotonic() + most_s
        next_s = time.monotonic() + chance.uniform(*every_s)
        while open_studies(store, names(count)):
            assert time.monotonic() < until, f"not over after {most_s:g} s: {open_studies(store, names(count))}"
            if len(self.killed) < kills and time.monotonic() >= next_s and self.kill(chance):
                next_s = time.monotonic() + chance.uniform(*every_s)
            time.sleep(0.02)

    def stop(self) -> list[int]:
        """End it as an operator does; the workers that are there all the same, some seconds later."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(60)
        until = time.monotonic() + 20
        while (left := self.processes("worker")) and time.monotonic() < until:
            time.sleep(0.1)
        return left


def open_studies(store: Store, studies: Sequence[str]) -> list[str]:
    """Those that wait or run, or whose worker has not let go of them."""
    orders = {name: store.orders.order(name) for name in studies}
    return [name for name in studies if store.listing.state(name) in OPEN or orders[name].worker]
