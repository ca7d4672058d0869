"""What a search believes at one moment, for people to see: which candidates may still win, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Objective, TuneRequest
from tuner.cost.step_batch import Floats
from tuner.search.belief import Belief
from tuner.search.choice import UNLIKELY, Outlook
from tuner.trial.results import TrialResult

SHOWN = 8  # candidates
_QUANTILES = (0.05, 0.5, 0.95)

Range = tuple[float | None, float | None, float | None]  # 5 %, median, 95 %; None where it carries no such rate


@dataclass(frozen=True, slots=True)
class Believed:
    """What is believed of one candidate at the asked rate.

    ``wins``: the probability that it is launched for, to beat the best measured layout; ``meets``: that it meets the
    SLO. ``of_target``: latency ÷ target, of the target that is missed by most. ``objective``: mean E2E latency in ms,
    or the highest load step that is held in requests/s; None where the objective is a price, which is certain.
    """

    layout: ParallelLayout
    wins: float
    meets: float
    of_target: Range
    objective: Range | None


@dataclass(frozen=True, slots=True)
class Beliefs:
    """``rows`` are the candidates that may still be launched, the likeliest winners first; ``left`` counts all of them,
    ``could_win`` those that win with a probability of 1 % or more; ``anything`` is the probability that any does.
    ``best`` is what is believed of the best measured layout."""

    rows: tuple[Believed, ...]
    left: int
    could_win: int
    anything: float
    best: Believed | None


def beliefs(
    request: TuneRequest, belief: Belief, left: NDArray[np.bool_], seen: Outlook, best: Sequence[TrialResult]
) -> Beliefs:
    """Those of the candidates that are ``left``, beside the best measured layout, whose trials these are."""
    forecast = belief.forecast()
    meets = (forecast.miss <= 0).mean(axis=0)
    values = _values(request, forecast.held, forecast.e2e_ms)

    def row(at: int) -> Believed:
        return Believed(
            layout=belief.candidates[at].layout,
            wins=float(seen.chance[at]),
            meets=float(meets[at]),
            of_target=_range(np.exp(forecast.miss[:, at])),
            objective=None if values is None else _range(values[:, at]),
        )

    order = np.lexsort((np.arange(left.size), seen.miss, -seen.meets, -seen.chance))
    shown = [int(at) for at in order if left[at]][:SHOWN]
    measured = {trial.deployment for trial in best}
    leader = next((i for i, candidate in enumerate(belief.candidates) if candidate.layout in measured), None)
    return Beliefs(
        rows=tuple(row(at) for at in shown),
        left=int(left.sum()),
        could_win=int((seen.chance[left] >= UNLIKELY).sum()),
        anything=seen.anything,
        best=None if leader is None else row(leader),
    )


def _values(request: TuneRequest, held: NDArray[np.int64], e2e_ms: Floats) -> Floats | None:
    if request.objective is Objective.MIN_LATENCY:
        return e2e_ms
    if request.objective is Objective.MAX_GOODPUT:
        return np.append(0.0, request.rates_req_per_s)[held]
    return None


def _range(draws: Floats) -> Range:
    """Of draws, some of which may be infinite: no interpolation between those and others."""
    low, middle, high = np.quantile(draws, _QUANTILES, method="inverted_cdf")
    return _finite(low), _finite(middle), _finite(high)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
