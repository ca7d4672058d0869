"""A stage for re-tuning on the real stack: a Ray cluster of several nodes on one machine, and a watched study on it.

Nodes are raylets, so that one can join, or be lost with all that runs on it. Commands are ``parlay``'s own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from deploy.report.timeline_page import render_timeline
from deploy.rollout.front import Front
from serve.launch.niceness import own_ray
from serve.launch.processes import PROC, free_port
from serve.tiny_model import build_tiny_model
from tuner.app.watch.timeline import timeline_of
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import load_request
from tuner.errors import ParlayError
from tuner.retune.live import LiveState
from tuner.study.store import Store

STUDY = "retune"
SHORTENED = 10.0  # times that the detectors' windows are
EVERY_S = 4.0
OBJECT_STORE_BYTES = 100 * 1024 * 1024
_PARLAY = (sys.executable, "-m", "tuner.app.cli.commands")


class Stage:
    """One run in ``folder``, which is made; raises ParlayError where it takes longer than ``limit_s``. ``tell`` says
    what happens, with the seconds since the beginning."""

    def __init__(self, folder: Path, request: Mapping[str, Any], policy: Mapping[str, Any], limit_s: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.limit_s, self.began = folder, limit_s, time.perf_counter()
        self._url = f"sqlite:///{folder / 'parlay.db'}"
        model = build_tiny_model(folder / "tiny-llama", "demo")
        self._files = (folder / "request.yaml", folder / "policy.yaml")
        for path, document in zip(self._files, ({"model": str(model)} | dict(request), dict(policy)), strict=True):
            path.write_text(yaml.safe_dump(document, sort_keys=False))

    @property
    def request(self) -> TuneRequest:
        """What the study asks."""
        return load_request(self._files[0])

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self.began

    def tell(self, text: str) -> None:
        """One line."""
        print(f"{self.seconds:5.0f} s  {text}", flush=True)

    def tune(self, address: str) -> None:
        """Have the study decided on the Ray cluster at that address."""
        self._parlay("tune", str(self._files[0]), "--study", STUDY, "--ray-address", address)

    def deploy(self, address: str) -> str:
        """Have its winner serve there; the address where clients ask."""
        port = str(free_port())
        self._parlay("deploy", STUDY, "--ray-address", address, "--port", port, "--policy", str(self._files[1]))
        return f"http://127.0.0.1:{port}"

    def _parlay(self, *words: str) -> None:
        done = subprocess.run([*_PARLAY, *words, "--out", str(self.folder)], stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise ParlayError(f"parlay {words[0]} ended with exit code {done.returncode}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """``parlay watch`` beside the block."""
        words = [*_PARLAY, "watch", STUDY, "--every", f"{EVERY_S:g}", "--windows-shortened", f"{SHORTENED:g}"]
        process = subprocess.Popen([*words, "--out", str(self.folder)])
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The studies' store."""
        opened = Store(self._url)
        try:
            yield opened
        finally:
            opened.close()

    def until(self, holds: Callable[[Store], bool], what: str, most_s: float | None = None) -> bool:
        """Wait until the store says so, or for ``most_s``; whether it does. Raises ParlayError after the limit."""
        ends_s = self.seconds + (self.limit_s if most_s is None else most_s)
        with self.store() as store:
            while not holds(store):
                if self.seconds > self.limit_s:
                    raise ParlayError(f"{what} did not come about within {self.limit_s:g} s")
                if self.seconds > ends_s:
                    return False
                time.sleep(1)
        return True

    def end(self, *facts: tuple[str, str]) -> Path:
        """Tell how rollouts ended, and end the front, which would go on; the page with all of it over time."""
        page_file = self.folder / "timeline.html"
        with self.store() as store:
            page_file.write_text(render_timeline(timeline_of(store, STUDY, facts)), encoding="utf-8")
            for rollout in store.rollouts.of(STUDY):
                self.tell(f"rollout {rollout.number} to {rollout.new}: {rollout.step.value}: {rollout.outcome}")
        for front in self.folder.glob("state/*/front"):
            Front(front).close()
        return page_file


def serving(store: Store) -> list[str]:
    """Layouts that serve, where no rollout is under way."""
    if store.rollouts.open(STUDY) is not None:
        return []
    return [str(one.deployment.shape) for one in store.live.of(STUDY) if one.state is LiveState.SERVING]


class Nodes:
    """Raylets of a few CPUs each, beside the head's."""

    def __init__(self, made: Any) -> None:
        self._made, self.address = made, str(made.address)

    def join(self, count: int = 1, cpus: int = 1) -> Any:
        """Have so many join; the last one."""
        for _ in range(count):
            node = self._made.add_node(num_cpus=cpus, object_store_memory=OBJECT_STORE_BYTES)
        return node

    def lose(self, node: Any) -> None:
        """Kill its raylet with all that runs on it, at once, as a machine that loses its power."""
        own = [info.process.pid for infos in node.all_processes.values() for info in infos]
        for pid in [*own, *_below(own)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _below(pids: list[int]) -> list[int]:
    """The processes that these have begun, and those that they have, and so on."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, ahead = [], list(pids)
    while ahead:
        below = children.get(ahead.pop(), [])
        found += below
        ahead += below
    return found


@contextmanager
def cluster() -> Iterator[Nodes]:
    """A Ray cluster of one node of one CPU, to the end of the block; its agents tell metrics every second."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_metrics_report_interval_ms": "1000", **own_ray()}
    from ray.cluster_utils import Cluster

    made = Cluster()
    try:
        made.add_node(num_cpus=1, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES)
        yield Nodes(made)
    finally:
        made.shutdown()
