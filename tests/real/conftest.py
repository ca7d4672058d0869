"""Real launchers and a tiny real model, shared by the whole suite: starting Ray costs as much as an engine."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve.launch.cpu_dtype import multiplies_bfloat16
from serve.launch.engine import serve_app
from serve.launch.health import completes, served_models
from serve.launch.local_launcher import LocalProcessLauncher
from serve.launch.processes import ProcessId, writers_under
from serve.launch.ray_launcher import RayServeLauncher
from serve.measure.http_meter import HttpMeter
from serve.tiny_model import build_tiny_model
from tests.launcher_contract import OUTPUT_TOKENS, ContractBench, Fault
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TuneRequest
from tuner.ask.request_document import parse_request
from tuner.errors import FailureReason
from tuner.trial.launched import Launched, RayApplication
from tuner.trial.results import LoadStep
from tuner.trial.seams import Launcher, RunningDeployment, Samples, Watch

HERE = Path(__file__).parent
LATER = {  # of what both launchers keep, CI tries these by the other one
    "test_an_engine_that_dies_at_start_says_why[ray-serve-memory]",
    "test_an_engine_that_dies_at_start_says_why[local-process-crash]",
    "test_a_worker_that_a_signal_kills_while_it_starts_is_named[ray-serve]",
    "test_an_interrupted_launch_leaves_nothing[ray-serve]",
    "test_a_launch_that_is_cancelled_from_another_thread_ends_soon_and_leaves_nothing[ray-serve]",
    "test_a_killed_worker_is_a_dead_replica[local-process]",
    "test_what_a_killed_run_leaves_is_removed_by_the_next[ray-serve]",
    # and none of these, which end as a crash and an interrupted launch do
    "test_a_worker_that_a_signal_kills_while_it_starts_is_named[local-process]",
    "test_an_engine_that_dies_at_start_says_why[local-process-memory]",
    "test_a_launch_that_is_cancelled_from_another_thread_ends_soon_and_leaves_nothing[local-process]",
}
# The model is stored in bfloat16, with which engines start a minute later on a CPU that does not multiply it.
DTYPE = "auto" if multiplies_bfloat16() else "float32"
MAKERS: dict[str, Callable[..., Launcher]] = {
    "ray-serve": lambda port, state_dir: RayServeLauncher(None, port, state_dir=state_dir),
    "local-process": lambda port, state_dir: LocalProcessLauncher(port, state_dir=state_dir),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to ``make test-long`` what CI tries by one launcher alone."""
    for item in items:
        if HERE in item.path.parents and item.name in LATER:
            item.add_marker(pytest.mark.long)


def request_for(model: Path, **engine: Any) -> TuneRequest:
    """A request for two CPU devices."""
    return parse_request(
        {
            "model": str(model),
            "cluster": {"gpu": "cpu", "gpus_per_node": 2},
            "workload": {"prompt_tokens": 64, "output_tokens": OUTPUT_TOKENS, "arrival": {"requests_per_s": 1}},
            "slo": [{"metric": "ttft", "percentile": 99, "ms": 5000}],
            "engine": {"dtype": DTYPE, "kv_cache_gib": 0.25, "max_model_len": 256, "start_timeout_s": 240} | engine,
        }
    )


class Bench(ContractBench):
    """A launcher of real engines."""

    @property
    def state_dir(self) -> Path:
        return self.root / "state"

    @property
    def model(self) -> Path:
        return self.root / "tiny"

    @property
    def model_source(self) -> str:
        return str(self.model.resolve())

    def request(self, **engine: Any) -> TuneRequest:
        return request_for(self.model, **engine)

    def fault(self, kind: str, scratch: Path) -> Fault:
        if kind == "memory":
            return Fault(self.request(kv_cache_gib=4000), FailureReason.DOES_NOT_FIT, "requested memory for kv")
        model = shutil.copytree(self.model, scratch / "corrupt")
        (model / "model.safetensors").write_bytes(b"\0" * 64)
        return Fault(request_for(model), FailureReason.ENGINE_CRASHED, "SafetensorError")

    def kill_worker(self, deployment: RunningDeployment) -> None:
        worker = next(process for process in self.left_running() if "VLLM::Worker" in command_of(process))
        os.kill(worker.pid, signal.SIGKILL)

    def left_running(self) -> list[ProcessId]:
        """vLLM's processes below this launcher, found by the files they write."""
        directories = [self.root / "logs"]
        for record in self.state_dir.glob("*.json"):
            directories += [Path(path) for path in json.loads(record.read_text())["directories"]]
        return [process for process in writers_under(directories) if "VLLM::" in command_of(process)]

    def gathered(self, deployment: RunningDeployment) -> float | None:
        seen: list[Samples] = []
        self.meter.measure(deployment, LoadStep(0, 4.0, 2.0, seed=2), self.request(), Watch(samples=seen.append))
        answers, between_messages = len(seen[0][Metric.TTFT]), len(seen[0].get(Metric.ITL, ()))
        return 1 - between_messages / (answers * (OUTPUT_TOKENS - 1))

    def record_of(self, layout: ParallelLayout, record: Launched) -> Launched:
        payload = record.payload
        assert isinstance(payload, RayApplication)
        config = copy.deepcopy(payload.config)
        config["args"]["llm_configs"][0]["experimental_configs"]["stream_batching_interval_ms"] = 250
        config["args"]["ingress_deployment_config"]["num_replicas"] = 2
        assert config["args"] == serve_app("x", layout, self.request(), model_source=self.model_source)["args"]
        return replace(record, payload=replace(payload, config=config))

    def answers(self, deployment: RunningDeployment) -> bool:
        if served_models(deployment.url, timeout_s=10) != (deployment.model_id,):
            return False
        return completes(deployment.url, deployment.model_id, timeout_s=30)


def command_of(process: ProcessId) -> str:
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny", "test")


@pytest.fixture(scope="session", params=sorted(MAKERS))
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp(request.param)
    launcher = MAKERS[request.param](None, root / "state")
    (root / "tiny").symlink_to(tiny_model)
    yield Bench(request.param, launcher, HttpMeter(), root)
    launcher.close()
    assert not list((root / "state").glob("*.json"))


@pytest.fixture(scope="class")
def deployment(bench: Bench, tiny_model: Path) -> Iterator[RunningDeployment]:
    """A deployment that a class of tests only looks at; it holds one of the two devices."""
    up = bench.launch(request_for(tiny_model))
    yield up
    up.teardown()
    assert any((bench.root / "logs").rglob("*.*"))  # Ray's are copied there by then
