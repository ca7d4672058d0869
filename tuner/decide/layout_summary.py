"""Where a measured layout stands: all its trials taken together, with their spread and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuner.ask.cluster import usd_per_hour, usd_per_million_tokens
from tuner.ask.deployment import Deployment, one_group
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, Objective, TargetKey, TuneRequest
from tuner.ask.slo import Verdict
from tuner.decide.comparison import asked_steps, by_layout, held_req_per_s, meets_and_order, nearest_missed
from tuner.stats.intervals import wilson
from tuner.trial.results import Purpose, StepResult, TrialResult, TrialState


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over ``runs`` trials: its mean, and the lowest and highest of them. ``interval`` is the 95 % interval of
    the one run, where there is one run and it could be given."""

    mean: float
    low: float
    high: float
    runs: int
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: Iterable[float | None], interval: tuple[float, float] | None = None) -> Spread | None:
        """The spread of the values that exist; None of none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(sum(known) / len(known), min(known), max(known), len(known), interval if len(known) == 1 else None)

    @property
    def share(self) -> float | None:
        """(highest − lowest) / mean over repeated runs; None of a single one."""
        return (self.high - self.low) / self.mean if self.runs > 1 and self.mean else None


@dataclass(frozen=True, slots=True)
class LayoutSummary:
    """One measured layout. ``meets`` and ``key`` are those of ``comparison``, at the rates that all its trials allow.

    ``slo_ms`` are the values of the SLO's targets, by target, ``e2e_ms`` the mean E2E latency and
    ``output_tok_per_s`` those of the steps at which layouts are compared; of a layout that was seen to hold no rate,
    those at the lowest rate that it missed. Either is ``at_req_per_s``. ``goodput`` is that at the highest held rate,
    in requests/s. ``attainment`` is over the requests of all runs, with Wilson's 95 % interval. ``confirmed`` is None
    without a confirmation run that showed anything, else whether all of them held the asked rate.
    """

    deployment: Deployment
    trials: tuple[TrialResult, ...]
    meets: bool
    key: tuple[float, ...]
    held_req_per_s: float | None
    slo_ms: Mapping[TargetKey, Spread | None]
    e2e_ms: Spread | None
    goodput: Spread | None
    output_tok_per_s: Spread | None
    attainment: float | None
    attainment_interval: tuple[float, float] | None
    failures: int
    confirmed: bool | None
    usd_per_hour: float | None
    usd_per_million_tokens: float | None
    at_req_per_s: float | None = None

    @property
    def layout(self) -> ParallelLayout:
        """The layout of a deployment that is one engine group; raises BadInput of two pools."""
        return one_group(self.deployment)

    @property
    def runs(self) -> int:
        """Trials that were measured."""
        return sum(bool(trial.steps) for trial in self.trials)

    @property
    def trial(self) -> TrialResult:
        """The trial that stands for the layout: its last confirmation, else its last measured one."""
        measured = [t for t in self.trials if t.steps]
        confirmations = [t for t in measured if t.purpose is Purpose.CONFIRM]
        return (confirmations or measured)[-1]


def layout_summaries(request: TuneRequest, trials: Sequence[TrialResult]) -> tuple[LayoutSummary, ...]:
    """The measured layouts, best first; those that meet the SLO before those that do not."""
    found = [
        _summary(request, layout, own)
        for layout, own in by_layout(trials).items()
        if any(t.steps and t.state is not TrialState.FAILED for t in own)
    ]
    return tuple(sorted(found, key=lambda s: (not s.meets, s.key, s.trials[0].number)))


def _summary(request: TuneRequest, layout: Deployment, trials: tuple[TrialResult, ...]) -> LayoutSummary:
    meets, key = meets_and_order(request, *trials)
    held = held_req_per_s(request, trials)
    highest = [s for trial in trials for s in trial.steps if s.step.rate_req_per_s == held and s.meets(request)]
    steps = asked_steps(request, trials) or nearest_missed(request, trials)
    tokens = Spread.of(step.output_tok_per_s for step in steps)
    price = usd_per_hour(request, layout)
    sent = sum(step.sent for step in steps if step.attainment is not None)
    good = sum(round(step.attainment * step.sent) for step in steps if step.attainment is not None)
    return LayoutSummary(
        deployment=layout,
        trials=trials,
        meets=meets,
        key=key,
        held_req_per_s=held,
        slo_ms={target.key: _target(steps, target.key) for target in request.slo},
        e2e_ms=Spread.of(step.latency[Metric.E2E].mean_ms for step in steps if Metric.E2E in step.latency),
        goodput=Spread.of(step.goodput_req_per_s for step in highest),
        output_tok_per_s=tokens,
        attainment=good / sent if sent else None,
        attainment_interval=wilson(good, sent) if sent else None,
        failures=sum(trial.state is TrialState.FAILED for trial in trials),
        confirmed=_confirmed(request, trials),
        usd_per_hour=price,
        usd_per_million_tokens=usd_per_million_tokens(price, tokens.mean) if price and tokens and tokens.mean else None,
        at_req_per_s=steps[0].step.rate_req_per_s if steps else None,
    )


def _target(steps: Sequence[StepResult], key: TargetKey) -> Spread | None:
    interval = next((step.slo_intervals_ms[key] for step in steps if key in step.slo_intervals_ms), None)
    return Spread.of((step.slo_values_ms.get(key) for step in steps), interval)


def _confirmed(request: TuneRequest, trials: Sequence[TrialResult]) -> bool | None:
    """None where no confirmation run showed anything: it failed, or its client was the bottleneck."""
    verdicts = []
    for trial in trials:
        if trial.purpose is Purpose.CONFIRM and trial.verdict(request) is not Verdict.UNKNOWN:
            verdicts.append(meets_and_order(request, trial)[0])
    return all(verdicts) if verdicts else None


def front(request: TuneRequest, measured: Sequence[LayoutSummary]) -> tuple[LayoutSummary, ...]:
    """Layouts that meet the SLO and that no other beats on both of ``front_axes``, by the first."""
    points = [(tuple(axis_value(one, axis) for axis in front_axes(request)), one) for one in measured if one.meets]
    best: list[tuple[tuple[float, ...], LayoutSummary]] = []
    for point, one in sorted(points, key=lambda pair: pair[0]):
        if not best or point[1] < best[-1][0][1]:
            best.append((point, one))
    return tuple(one for _, one in best)


def front_axes(request: TuneRequest) -> tuple[Objective, Objective]:
    """The two objectives asked for; with one, what it costs and what it carries: devices (or dollars) and goodput."""
    if request.second_objective is not None:
        return request.objective, request.second_objective
    cost = Objective.MIN_COST if request.objective is Objective.MIN_COST else Objective.MIN_GPUS
    return cost, Objective.MAX_GOODPUT


def axis_value(summary: LayoutSummary, axis: Objective) -> float:
    """A layout's place on an axis of the front, smallest best: devices, US dollars per hour (devices without a price),
    mean E2E in ms, or minus the measured goodput in requests/s; infinite where it was not measured."""
    if axis is Objective.MIN_GPUS:
        return float(summary.deployment.devices)
    if axis is Objective.MIN_COST:
        return float(summary.deployment.devices) if summary.usd_per_hour is None else summary.usd_per_hour
    figure = summary.goodput if axis is Objective.MAX_GOODPUT else summary.e2e_ms
    if figure is None:
        return float("inf")
    return -figure.mean if axis is Objective.MAX_GOODPUT else figure.mean
