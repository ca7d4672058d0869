"""One real launch and what was measured of it, load step by load step.

A failed trial is never a slow trial: it has a ``FailureReason`` and no figures. Absent data is ``None``, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tuner.ask.deployment import Deployment, one_group
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TargetKey, TuneRequest
from tuner.ask.slo import Seen, Values, Verdict, verdict
from tuner.errors import FailureReason
from tuner.stats.intervals import Quantiles
from tuner.trial.launched import Launched
from tuner.trial.start_up import StartUp


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
class LoadStep:
    """What to send: a Poisson (or other) arrival process at one rate, for a window. A warm-up may end before, or go on
    up to ``longest_s`` (see ``tuner.stats.warm_up``); None: it lasts ``duration_s``."""

    index: int
    rate_req_per_s: float
    duration_s: float
    seed: int
    warmup: bool = False
    longest_s: float | None = None


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
    then names. ``warm_up_s`` are the seconds of load before the step that did not count (None: there were none).
    ``engine`` holds the engine's own figures over the window, those that it exposes: ``waiting_mean``, ``waiting_max``,
    ``running_mean``, ``running_max`` (requests), ``kv_cache_share_mean``, ``kv_cache_share_max`` (0 to 1),
    ``preemptions``, ``prefix_queries_tokens``, ``prefix_hits_tokens``. ``cautions`` say where the server counts tokens
    otherwise than was asked, or answers otherwise, and where the engine was not warm yet.
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
    cautions: tuple[str, ...] = ()
    warm_up_s: float | None = None

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
class TrialResult:
    """One trial, finished: its steps, or why there are none.

    ``repeat`` counts the earlier trials of the same layout: their arrivals differ. ``seconds`` is the wall time from
    the order to the end of the teardown, ``device_s`` that time summed over the devices; both are None while it runs.
    ``launched`` is None where nothing came up, and in studies of before it was recorded. ``engine_of`` is the trial on
    whose engine it was measured, where only the path to that was changed, or the same was measured once more: such a
    trial is no launch, begins where the one before it on the engine ended, and ``ready_after_s`` is what the change
    took (None where there was none).
    """

    number: int
    deployment: Deployment
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
    engine_of: int | None = None

    @property
    def layout(self) -> ParallelLayout:
        """The layout of a deployment that is one engine group; raises BadInput of two pools."""
        return one_group(self.deployment)

    @property
    def start_up(self) -> StartUp | None:
        """Its start by phase; None where nothing came up, or nobody took the time."""
        return self.launched.start_up if self.launched is not None else None

    def shown_step(self, request: TuneRequest) -> StepResult | None:
        """The step that stands for the trial: the highest rate that met the SLO, else the lowest that was measured."""
        lowest = min(self.steps, key=lambda s: (s.step.warmup, s.step.rate_req_per_s), default=None)
        return self.best_step(request) or lowest

    def verdict(self, request: TuneRequest) -> Verdict:
        """MET where a step met the SLO; else MISSED where one missed it, and UNKNOWN where none says anything."""
        found = {step.verdict(request) for step in self.steps if not step.step.warmup}
        return next((one for one in (Verdict.MET, Verdict.MISSED) if one in found), Verdict.UNKNOWN)

    def best_step(self, request: TuneRequest) -> StepResult | None:
        """The highest-rate step that met the SLO, or None."""
        met = [s for s in self.steps if not s.step.warmup and s.meets(request)]
        return max(met, key=lambda s: s.step.rate_req_per_s, default=None)
