"""What was never launched, held against the winner: by how much the model would have to err for it to win.

A candidate that was not measured can only be judged by the model. So every deployment that fits is priced again, its
times divided by rising factors, and those that would then beat the measured winner on the objective are counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.ask.cluster import requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Metric, Objective, TuneRequest
from tuner.ask.space import Space
from tuner.cost.steady import Floats
from tuner.decide.layout_summary import LayoutSummary
from tuner.plan.bounds import Deployments, Mask
from tuner.plan.prune import price_all
from tuner.plan.replica_prices import ReplicaPrices

FACTORS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5, 1.75, 2.0, 2.5, 3.0)
_ROUNDING = 1 - 1e-9


@dataclass(frozen=True, slots=True)
class Rival:
    """If times were ``factor`` times shorter than the model says, ``count`` layouts would win, such as ``layout``."""

    factor: float
    count: int
    layout: str


@dataclass(frozen=True, slots=True)
class NeverLaunched:
    """Of ``fitting`` deployments that fit the devices and were never launched, those that would win, by factor.

    ``slower`` corrected the model by what was measured.
    """

    fitting: int
    slower: float
    rivals: tuple[Rival, ...]

    def lines(self) -> list[str]:
        """For people."""
        text = f"{self.fitting:,} more deployments fit the devices. "
        says = "the model says" + (f" (its times × {self.slower:.2f}, as measured here)" if self.slower != 1 else "")
        if not self.rivals:
            return [f"{text}Even {FACTORS[-1]:g} × faster than {says}, none would beat the winner."]
        first = self.rivals[0]
        some = f"{first.count:,} would, {first.layout} first" if first.count > 1 else f"one would, {first.layout}"
        if first.factor == 1:
            return [f"{text}As fast as {says}, some would beat the winner: {some}. The search ended before them."]
        below = FACTORS[FACTORS.index(first.factor) - 1]
        text += f"Even {below:g} × faster than {says}, none would beat the winner; " if below > 1 else ""
        return [f"{text}{first.factor:g} × faster{' than ' + says if below == 1 else ''}, {some}."]


def never_launched(
    request: TuneRequest,
    model: ModelShape,
    space: Space,
    winner: LayoutSummary,
    tried: Collection[ParallelLayout],
    slower: float = 1.0,
) -> NeverLaunched:
    """Hold all that was not ``tried`` against the winner, under a model whose times are ``slower`` times longer."""
    cluster = requested_cluster(request)
    _, priced = price_all(request, model, cluster, space)
    fresh = [~_places(one, tried) for one in priced]
    fitting = sum(int((Deployments(request, one).fits & new).sum()) for one, new in zip(priced, fresh, strict=True))
    rivals: list[Rival] = []
    for factor in FACTORS:
        found = [Deployments(request, one, slower / factor) for one in priced]
        beating = [_beats(one, winner) & new for one, new in zip(found, fresh, strict=True)]
        count = sum(int(mask.sum()) for mask in beating)
        if count and (not rivals or count > rivals[-1].count):
            rivals.append(Rival(factor, count, str(_first(found, beating))))
    return NeverLaunched(fitting, slower, tuple(rivals))


def _places(priced: ReplicaPrices, layouts: Collection[ParallelLayout]) -> Mask:
    """Where some layouts stand in the arrays of one replica."""
    knobs, found = priced.knobs, np.zeros(priced.ttft_ms.shape, dtype=bool)
    for place, member in enumerate(priced.members):
        for one in layouts:
            rows, columns = knobs.limits == one.max_num_batched_tokens, knobs.seqs == one.max_num_seqs
            alike = replace(
                member, max_num_batched_tokens=one.max_num_batched_tokens, max_num_seqs=one.max_num_seqs
            )  # fmt: skip
            if alike == one:
                found[place] |= rows[:, None] & columns[None, :]
    return found


def _beats(one: Deployments, winner: LayoutSummary) -> Mask:
    """Which deployments would be better than the winner on the first objective."""
    request, shape = one.request, one.fits.shape
    if request.objective is Objective.MAX_GOODPUT:
        higher = [rate for rate in request.rates_req_per_s if rate > (winner.held_req_per_s or 0.0)]
        return one.highest_rate(at_most=True) >= higher[0] * _ROUNDING if higher else np.zeros(shape, dtype=bool)
    meeting = one.meeting()
    if request.objective is Objective.MIN_LATENCY:
        e2e_ms = one.at_asked(Metric.E2E, None)
        return meeting & (e2e_ms < (winner.e2e_ms.mean if winner.e2e_ms else np.inf))
    devices: Floats = np.array([float(member.devices) for member in one.priced.members])
    price = one.priced.costs.cluster.usd_per_gpu_hour
    mine = float(winner.layout.devices)
    if request.objective is Objective.MIN_COST and price is not None and winner.usd_per_hour is not None:
        devices, mine = devices * price, winner.usd_per_hour
    return meeting & (devices < mine * _ROUNDING)[:, None, None]


def _first(found: Sequence[Deployments], masks: Sequence[Mask]) -> ParallelLayout:
    """The smallest layout of those marked, by devices."""
    marked = [one.layout(int(np.argmax(mask))) for one, mask in zip(found, masks, strict=True) if mask.any()]
    return min(marked, key=lambda layout: (layout.devices, layout))
