"""Scripted stand-ins for what a study drives: documents of requests, a launcher and a meter that keep a journal."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna

from tuner.ask.deployment import Deployment
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TuneRequest
from tuner.ask.request_document import parse_request
from tuner.ask.slo import attained
from tuner.errors import FailureReason, LaunchFailed
from tuner.plan.prune import Candidate, Prediction
from tuner.stats.intervals import Quantiles
from tuner.study.load_steps import step_at
from tuner.trial.launched import Launched, RayApplication
from tuner.trial.ledger import Spent
from tuner.trial.results import LoadStep, StepResult
from tuner.trial.seams import LaunchOrder, Watch
from tuner.trial.shared import SharedCluster

NOTHING_SPENT = Spent(0, 0.0, 0.0, 0.0)

DOCUMENT: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B",
    "cluster": {"gpu": "h100_sxm", "nodes": 1, "gpus_per_node": 8},
    "workload": {
        "prompt_tokens": {"mean": 128},
        "output_tokens": {"mean": 16},
        "arrival": {"process": "poisson", "requests_per_s": 8},
    },
    "slo": [{"metric": "ttft", "percentile": 99, "ms": 100}, {"metric": "tpot", "percentile": 99, "ms": 50}],
    "load": {"seconds": 1, "warmup_seconds": 1},
    "budget": {"launches": 8, "minutes": 60},
}


def document(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A valid request document with the value at each dotted path of ``changes`` put in."""
    made = copy.deepcopy(DOCUMENT)
    for path, value in (changes or {}).items():
        place: Any = made
        *parents, last = path.split(".")
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        place[int(last) if isinstance(place, list) else last] = copy.deepcopy(value)  # a later path may lead into it
    return made


def make_request(changes: Mapping[str, Any] | None = None) -> TuneRequest:
    """The request of ``document``."""
    return parse_request(document(changes))


def make_candidate(layout: ParallelLayout | str, goodput_req_per_s: float = 10.0) -> Candidate:
    """A kept layout with a plausible prediction."""
    layout = ParallelLayout.parse(layout) if isinstance(layout, str) else layout
    steps = ((22.0, 5.5), (25.0, 6.0))
    return Candidate(layout, Prediction(20.0, 5.0, 25.0, 6.0, goodput_req_per_s, 100_000, True, steps))


def steps_of(request: TuneRequest) -> list[LoadStep]:
    """A step at each rate of a request."""
    return [step_at(request, rate) for rate in request.rates_req_per_s]


def make_step(step: LoadStep, request: TuneRequest, ttft_ms: float, failed: int = 0) -> StepResult:
    """A load step in which TTFT was ``ttft_ms`` and TPOT a tenth of it, for every request alike."""
    values_ms = {Metric.TTFT: ttft_ms, Metric.TPOT: ttft_ms / 10, Metric.ITL: ttft_ms / 10, Metric.E2E: 3 * ttft_ms}
    sent = max(1, round(step.rate_req_per_s * step.duration_s))
    met = attained({metric: [ms] for metric, ms in values_ms.items()}, request.slo)
    attainment = (sent - failed) / sent if met else 0.0
    return StepResult(
        step=step,
        sent=sent,
        completed=sent - failed,
        failed=failed,
        wall_s=step.duration_s,
        latency={metric: Quantiles(sent, ms, ms, ms, ms, ms) for metric, ms in values_ms.items()},
        slo_values_ms={target.key: values_ms[target.metric] for target in request.slo},
        attainment=attainment,
        goodput_req_per_s=attainment * step.rate_req_per_s,
        output_tok_per_s=sent * 16 / step.duration_s,
        schedule_lag_p99_ms=0.5,
        errors={"http_500": failed} if failed else {},
    )


@cache
def _empty_store() -> bytes:
    """A SQLite file with Optuna's tables: making them anew takes longer than a whole search on them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        optuna.storages.RDBStorage(f"sqlite:///{path}").engine.dispose()
        return path.read_bytes()


def copy_of_empty_store(path: Path) -> str:
    """URL of a new SQLite store at ``path``."""
    path.write_bytes(_empty_store())
    return f"sqlite:///{path}"


@dataclass
class FakeDeployment:
    """A deployment that is up from its launch to its teardown."""

    app: str
    layout: ParallelLayout
    launcher: FakeLauncher
    url: str = "http://127.0.0.1:1"
    model_id: str = "fake"
    ready_after_s: float = 1.5

    @property
    def launched(self) -> Launched:
        config = {"name": self.app, "args": {"layout": str(self.layout)}}
        return Launched(self.launcher.name, dict(self.launcher.versions), "org/model", RayApplication(config))

    def failure(self) -> tuple[FailureReason, str] | None:
        return None

    def reconfigure(self, layout: ParallelLayout, watch: Watch) -> None:
        watch.cancel.raise_if_cancelled()
        assert self.app in self.launcher.running
        self.launcher.reconfigured.append(str(layout))
        failure = self.launcher.failures.get(str(layout))
        if failure is not None:
            raise failure
        self.layout, self.ready_after_s = layout, 0.25

    def log_tail(self, lines: int = 20) -> tuple[str, ...]:
        return ("INFO started", "INFO serving")[-lines:]

    def teardown(self) -> None:
        self.launcher.running.discard(self.app)


@dataclass
class FakeLauncher:
    """Brings up whatever is not in ``failures``.

    ``running`` is what the cluster runs and outlives a launcher that dies: hand the same set to the next one.
    """

    failures: Mapping[str, LaunchFailed | type[BaseException]] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    orders: list[LaunchOrder] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    reconfigured: list[str] = field(default_factory=list)
    in_place: frozenset[str] = frozenset({"stream_interval_ms", "ingress_replicas"})
    name: str = "fake"
    refused: str | None = None  # an executor that this launcher cannot run
    parallel: int = 1
    cluster: SharedCluster | None = None
    versions: Mapping[str, str] = field(default_factory=lambda: {"ray": "2.60.0", "vllm": "0.29.0"})

    def refuses(self, deployment: Deployment, request: TuneRequest) -> str | None:
        return f"executor {deployment.executor}" if deployment.executor == self.refused else None

    @property
    def launched(self) -> list[str]:
        return [str(order.layout) for order in self.orders]

    def launch(self, order: LaunchOrder, watch: Watch) -> FakeDeployment:
        assert len(self.running) < self.parallel, "its devices are another's"
        self.orders.append(order)
        watch.progress("starting the engine")
        failure = self.failures.get(str(order.layout))
        if failure is not None:
            raise failure
        self.running.add(order.app)
        return FakeDeployment(order.app, order.layout, self)

    def remove_orphan(self, app: str) -> bool:
        self.removed.append(app)
        found = app in self.running
        self.running.discard(app)
        return found

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class FakeMeter:
    """Answers with ``ttft_ms(layout, step)``, or raises what that returns; keeps what it was asked."""

    ttft_ms: Callable[[ParallelLayout, LoadStep], float | BaseException]
    asked: list[tuple[str, int]] = field(default_factory=list)

    def measure(self, deployment: FakeDeployment, step: LoadStep, request: TuneRequest, watch: Watch) -> StepResult:
        watch.cancel.raise_if_cancelled()
        self.asked.append((str(deployment.layout), step.index))
        answer = self.ttft_ms(deployment.layout, step)
        if isinstance(answer, BaseException):
            raise answer
        return make_step(step, request, answer)
