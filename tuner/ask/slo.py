"""Whether an SLO is met: one rule for what was measured, simulated and predicted, with three answers.

A target bounds a metric at a percentile over all requests; an ``attainment`` is the share of requests that must meet
every target at once. MET: every target holds, the attainment does too where it is asked, and no request failed. MISSED:
a value is over its target, too few requests met all of them, or one failed. UNKNOWN: nothing shows either, because the
window is invalid, or a target or the attainment has no value. One miss is enough, whatever else is unknown; what has no
value is never met and never missed.

An answer of one output token has no TPOT (``tuner.stats.streamed``) and no ITL. Where all answers have one token, a
target of these metrics is refused with the request, or with the order to measure (``request.require_defined``).
Where lengths vary, answers of one token do not count in the percentile, and meet the target by definition where
attainment is counted. Where no answer has a value, the target has none: UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.ask.request import Metric, SloTarget, TargetKey

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Values = Mapping[TargetKey, float | None]


class Verdict(StrEnum):
    """What was seen says of an SLO."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "unknown"

    @property
    def holds(self) -> bool | None:
        """True where it is met, False where it is missed, None where that is not known."""
        return {Verdict.MET: True, Verdict.MISSED: False}.get(self)


@dataclass(frozen=True, slots=True)
class Seen:
    """What speaks for and against an SLO: by target the value in ms (None: no request has one), requests that
    ``completed`` and that ``failed``, and the share of all requests that met every target.

    ``ended_early`` is the verdict that ended a window before its time. What is not ``valid`` says nothing.
    """

    values_ms: Values
    completed: int
    failed: int = 0
    attainment: float | None = None
    ended_early: Verdict | None = None
    valid: bool = True


def verdict(slo: Sequence[SloTarget], seen: Seen, attainment: float | None = None) -> Verdict:
    """What was seen says of the targets, and of the asked ``attainment`` (a share) if any; UNKNOWN without targets."""
    if not slo or not seen.valid:
        return Verdict.UNKNOWN
    if seen.failed or seen.ended_early is Verdict.MISSED or over(slo, seen.values_ms):
        return Verdict.MISSED
    if attainment is not None and seen.attainment is not None and seen.attainment < attainment:
        return Verdict.MISSED
    known = all(seen.values_ms.get(target.key) is not None for target in slo)
    if not known or not seen.completed or (attainment is not None and seen.attainment is None):
        return Verdict.UNKNOWN
    return Verdict.MET


@overload
def within(target: SloTarget, value_ms: float, times: float = 1.0) -> bool: ...
@overload
def within(target: SloTarget, value_ms: Floats, times: float = 1.0) -> Mask: ...
def within(target: SloTarget, value_ms: float | Floats, times: float = 1.0) -> bool | Mask:
    """Is a value, or each of an array, at most ``times`` the target? NaN, a load that cannot be carried, is not."""
    return value_ms <= target.ms * times


@overload
def ratio(target: SloTarget, value_ms: float) -> float: ...
@overload
def ratio(target: SloTarget, value_ms: Floats) -> Floats: ...
def ratio(target: SloTarget, value_ms: float | Floats) -> float | Floats:
    """Value ÷ target, above 1 exactly where the value is not ``within`` it."""
    return value_ms / target.ms


def log_ratio(target: SloTarget, log_ms: Floats) -> Floats:
    """The natural log of ``ratio``, of the logs of values in ms: above 0 where the target is missed."""
    return np.asarray(log_ms - np.log(target.ms))


def worst_ratio(slo: Sequence[SloTarget], value_ms: Callable[[SloTarget], Floats]) -> Floats:
    """The largest ``ratio`` over the targets, of arrays of one shape that ``value_ms`` gives for each."""
    return np.asarray(np.stack([ratio(target, value_ms(target)) for target in slo]).max(axis=0))


def ratios(slo: Sequence[SloTarget], values_ms: Values) -> list[float]:
    """The ``ratio`` of each target that has a value, in the order of the targets."""
    return [ratio(target, value) for target in slo if (value := values_ms.get(target.key)) is not None]


def over(slo: Sequence[SloTarget], values_ms: Values) -> list[tuple[SloTarget, float]]:
    """The targets that are missed, each with its value in ms."""
    known = ((target, values_ms.get(target.key)) for target in slo)
    return [(target, value) for target, value in known if value is not None and not within(target, value)]


def needed(count: ArrayLike, percentile: float) -> NDArray[np.int64]:
    """Of ``count`` values, how many must be within a limit for the percentile to be: the rank of the nearest-rank
    method (Hyndman and Fan 1996, type 1), by which percentiles and shares cannot contradict each other. 0 of none."""
    of = np.asarray(count, dtype=np.int64)
    rank = np.ceil(percentile * of / 100 - 1e-9)  # the slack undoes the rounding of, say, 99.9 × 1000 / 100
    return np.asarray(np.maximum(rank, np.minimum(of, 1)), dtype=np.int64)


def attained(latency_ms: Mapping[Metric, Sequence[float]], slo: Sequence[SloTarget]) -> bool:
    """True when one request met every target.

    A request has one TTFT, TPOT and E2E, and as many ITL as gaps between its chunks: there the target's own percentile
    of them counts. A metric that the request cannot have (TPOT of a single token) holds nothing against it.
    """
    for target in slo:
        values_ms = latency_ms.get(target.metric, ())
        if sum(within(target, value) for value in values_ms) < needed(len(values_ms), target.percentile):
            return False
    return True


def met(target: SloTarget, values_ms: Floats) -> Mask:
    """As ``attained``, of one target and an array with a value per request, NaN where the request cannot have one."""
    return np.asarray(within(target, values_ms) | np.isnan(values_ms))
