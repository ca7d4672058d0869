"""One real launch and its measurement, and the two seams through which every kind of cluster is driven.

A failed trial is never a slow trial: it has a ``FailureReason`` and no figures. Absent data is ``None``, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TargetKey, TuneRequest
from tuner.ask.slo import Seen, Values, Verdict, verdict
from tuner.errors import FailureReason
from tuner.trial.cancel import CancelHandle
from tuner.trial.devices import Placement
from tuner.trial.launched import Launched

Samples = Mapping[Metric, Sequence[float]]
"""Every value of each metric in one load step, in seconds: of requests that completed, for ITL of their tokens."""


class TrialState(StrEnum):
    """Where a trial stands; all but RUNNING are final."""

    RUNNING = "running"
    MEASURED = "measured"  # all load steps measured
    STOPPED = "stopped"  # measured in part: it had already lost
    FAILED = "failed"


class Purpose(StrEnum):
    """Why a trial was launched."""

    EXPLORE = "explore"
    CONFIRM = "confirm"  # a layout that was measured before, measured again under other arrivals


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Percentiles of one latency metric over the completed requests of a load step, in milliseconds."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class LoadStep:
    """What to send: a Poisson (or other) arrival process at one rate, for a window."""

    index: int
    rate_req_per_s: float
    duration_s: float
    seed: int
    warmup: bool = False


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came back from one load step.

    ``latency`` maps each metric (ttft, tpot, itl, e2e) to its quantiles; a metric with no sample is absent.
    ``slo_values_ms`` holds, by target, the value at exactly its percentile (None where no request has one).
    ``attainment`` is the share of all sent requests (failed ones count as missed) that met every target;
    ``goodput_req_per_s`` their rate over the window. ``client_bound``: requests left so late that the window says more
    of the client than of the engine; ``invalid`` says this, or what else keeps it from telling anything.

    ``slo_intervals_ms`` (by target) and ``attainment_interval`` are 95 % intervals. Requests were offered for
    ``offered_s`` seconds (None: all of the step's): fewer where a verdict was certain before, which ``ended_early``
    then names. ``engine`` holds the engine's own figures over the window, those that it exposes: ``waiting_mean``,
    ``waiting_max``, ``running_mean``, ``running_max`` (requests), ``kv_cache_share_mean``, ``kv_cache_share_max`` (0 to
    1), ``preemptions``, ``prefix_queries_tokens``, ``prefix_hits_tokens``.
    """

    step: LoadStep
    sent: int
    completed: int
    failed: int
    wall_s: float
    latency: dict[Metric, Quantiles]
    slo_values_ms: Values
    attainment: float | None
    goodput_req_per_s: float | None
    output_tok_per_s: float | None
    schedule_lag_p99_ms: float | None
    errors: dict[str, int]
    client_bound: bool = False
    slo_intervals_ms: Mapping[TargetKey, tuple[float, float] | None] = field(default_factory=dict)
    attainment_interval: tuple[float, float] | None = None
    offered_s: float | None = None
    ended_early: Verdict | None = None
    invalid: str | None = None
    engine: dict[str, float] = field(default_factory=dict)

    def shown_ms(self, request: TuneRequest) -> tuple[float | None, ...]:
        """The values of ``request.shown_metrics`` at their percentiles, in ms."""
        rest = {(metric, 99.0): found.p99_ms for metric, found in self.latency.items()}
        return tuple({**rest, **self.slo_values_ms}.get(key) for key in request.shown_metrics)

    def verdict(self, request: TuneRequest) -> Verdict:
        """What the window says of the SLO; one in which the client was the bottleneck, or that is invalid, says nothing
        of the layout."""
        seen = Seen(
            self.slo_values_ms,
            self.completed,
            self.failed,
            self.attainment,
            self.ended_early,
            valid=not self.client_bound and self.invalid is None,
        )
        return verdict(request.slo, seen, request.attainment)

    def meets(self, request: TuneRequest) -> bool:
        """True when the window shows that the layout meets the SLO."""
        return self.verdict(request) is Verdict.MET

    def misses(self, request: TuneRequest) -> bool:
        """True when the window shows that the layout does not meet the SLO."""
        return self.verdict(request) is Verdict.MISSED


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    """All that a launcher needs to bring up one trial.

    ``app`` is the deployment's unique name, known before anything starts, so that an orphan can be found by it;
    ``log_dir`` is where the trial's logs are kept. ``placement`` names the devices that it may use, by node; None: any.
    """

    study: str
    trial: int
    app: str
    layout: ParallelLayout
    request: TuneRequest
    log_dir: Path
    placement: Placement | None = None


def _nobody(_: object) -> None:
    """Told, and silent."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who follows one launch or one load step: what ends it early, and whom it tells.

    ``progress`` is told, in words, what goes on; ``samples`` what a step saw, once it is measured. They know by
    themselves which trial it is, and may be called from any thread; they should be quick, as the work waits for them.
    """

    cancel: CancelHandle = field(default_factory=CancelHandle)
    progress: Callable[[str], None] = _nobody
    samples: Callable[[Samples], None] = _nobody


@runtime_checkable
class Deployment(Protocol):
    """A running deployment of one layout."""

    @property
    def url(self) -> str:
        """Base URL of the OpenAI-compatible endpoint, without ``/v1``."""

    @property
    def model_id(self) -> str:
        """The model name that requests must carry."""

    @property
    def ready_after_s(self) -> float:
        """Seconds from the order to the first healthy answer."""

    @property
    def launched(self) -> Launched:
        """What was launched, and on what."""

    def failure(self) -> tuple[FailureReason, str] | None:
        """Why the deployment is not healthy any more, or None while it is."""

    def log_tail(self, lines: int = 20) -> tuple[str, ...]:
        """The engine's last log lines, oldest first."""

    def teardown(self) -> None:
        """Stop it and free its devices; safe to call twice, and after a crash."""


@runtime_checkable
class Launcher(Protocol):
    """Brings layouts up. Implementations: real Ray Serve, a local vLLM process, (later) the simulated cluster."""

    @property
    def name(self) -> str:
        """What it is, as shown to people: ``ray-serve``, ``local-process``."""

    @property
    def parallel(self) -> int:
        """How many deployments it can keep up side by side; 1 where they would disturb each other."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of what its engines run on, by distribution, as in the ``Launched`` of its deployments."""

    def refuses(self, layout: ParallelLayout, request: TuneRequest) -> str | None:
        """Why this launcher cannot run the layout as it is written, or None; asked before anything starts."""

    def launch(self, order: LaunchOrder, watch: Watch) -> Deployment:
        """Start, wait until it answers, and return it; tear down and raise LaunchFailed otherwise.

        It tells ``watch`` what it waits for, and ends with Cancelled within seconds after it was asked to. Whatever
        ends it, nothing is left behind.
        """

    def remove_orphan(self, app: str) -> bool:
        """Tear down the deployment of that name if a dead process left one; True if there was one."""

    def close(self) -> None:
        """Give back what the launcher itself holds (a Ray that it started)."""


@runtime_checkable
class Meter(Protocol):
    """Measures a deployment under one load step."""

    def measure(self, deployment: Deployment, step: LoadStep, request: TuneRequest, watch: Watch) -> StepResult:
        """Run the step to its end, and tell ``watch`` its samples, where they are known.

        Raises LaunchFailed(REPLICA_DIED | CLIENT_ERROR) when no figure can be had, and Cancelled soon after it was
        asked to end; the deployment stays.
        """


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial, finished: its steps, or why there are none.

    ``repeat`` counts the earlier trials of the same layout: their arrivals differ. ``seconds`` is the wall time from
    the order to the end of the teardown, ``device_s`` that time summed over the devices; both are None while it runs.
    ``launched`` is None where nothing came up, and in studies of before it was recorded.
    """

    number: int
    layout: ParallelLayout
    state: TrialState
    steps: tuple[StepResult, ...] = ()
    failure: FailureReason | None = None
    detail: str | None = None
    log_tail: tuple[str, ...] = ()
    ready_after_s: float | None = None
    seconds: float | None = None
    purpose: Purpose = Purpose.EXPLORE
    repeat: int = 0
    device_s: float | None = None
    launched: Launched | None = None

    def shown_step(self, request: TuneRequest) -> StepResult | None:
        """The step that stands for the trial: the highest rate that met the SLO, else the lowest that was measured."""
        return self.best_step(request) or (self.steps[0] if self.steps else None)

    def verdict(self, request: TuneRequest) -> Verdict:
        """MET where a step met the SLO; else MISSED where one missed it, and UNKNOWN where none says anything."""
        found = {step.verdict(request) for step in self.steps if not step.step.warmup}
        return next((one for one in (Verdict.MET, Verdict.MISSED) if one in found), Verdict.UNKNOWN)

    def best_step(self, request: TuneRequest) -> StepResult | None:
        """The highest-rate step that met the SLO, or None."""
        met = [s for s in self.steps if not s.step.warmup and s.meets(request)]
        return max(met, key=lambda s: s.step.rate_req_per_s, default=None)
