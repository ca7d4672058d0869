"""Real launchers and a tiny real model, shared by the whole suite: starting Ray costs as much as an engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from serve.launcher import RayServeLauncher
from serve.local import LocalProcessLauncher
from serve.processes import ProcessId, writers_under
from serve.tiny_model import build_tiny_model
from tuner.layout import ParallelLayout
from tuner.request import TuneRequest, parse_request
from tuner.trial import Deployment, Launcher, LaunchOrder

MAKERS: dict[str, Callable[..., Launcher]] = {
    "ray-serve": lambda port, state_dir: RayServeLauncher(None, port, state_dir=state_dir),
    "local-process": lambda port, state_dir: LocalProcessLauncher(port, state_dir=state_dir),
}


def request_for(model: Path, **engine: Any) -> TuneRequest:
    """A request for two CPU devices."""
    return parse_request(
        {
            "model": str(model),
            "cluster": {"gpu": "cpu", "gpus_per_node": 2},
            "workload": {"prompt_tokens": 64, "output_tokens": 8, "arrival": {"requests_per_s": 1}},
            "slo": [{"metric": "ttft", "percentile": 99, "ms": 5000}],
            "engine": {"kv_cache_gib": 0.25, "max_model_len": 256, "start_timeout_s": 240} | engine,
        }
    )


@dataclass
class Bench:
    """One launcher, the orders it was given, and what it has running."""

    kind: str
    launcher: Launcher
    root: Path
    said: list[str] = field(default_factory=list)
    orders: int = 0

    @property
    def state_dir(self) -> Path:
        return self.root / "state"

    def order(self, request: TuneRequest, layout: str = "tp=1") -> LaunchOrder:
        self.orders += 1
        app = f"parlay-test-{self.orders}"
        return LaunchOrder("test", self.orders, app, ParallelLayout.parse(layout), request, self.root / "logs" / app)

    def launch(self, request: TuneRequest, layout: str = "tp=1") -> Deployment:
        return self.launcher.launch(self.order(request, layout), self.said.append)

    def engine_processes(self) -> list[ProcessId]:
        """vLLM's processes below this launcher, found by the files they write."""
        directories = [self.root / "logs"]
        for record in self.state_dir.glob("*.json"):
            directories += [Path(path) for path in json.loads(record.read_text())["directories"]]
        return [process for process in writers_under(directories) if "VLLM::" in command_of(process)]


def command_of(process: ProcessId) -> str:
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny", "test")


@pytest.fixture(scope="session", params=sorted(MAKERS))
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp(request.param)
    launcher = MAKERS[request.param](None, root / "state")
    yield Bench(request.param, launcher, root)
    launcher.close()
    assert not list((root / "state").glob("*.json"))


@pytest.fixture(scope="class")
def deployment(bench: Bench, tiny_model: Path) -> Iterator[Deployment]:
    """A deployment that a class of tests only looks at; it holds one of the two devices."""
    up = bench.launch(request_for(tiny_model))
    yield up
    up.teardown()
