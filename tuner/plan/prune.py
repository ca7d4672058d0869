"""The funnel before launch: every point of the space is priced, and each that cannot win is dropped with its figure.

Work is done per replica (how one copy of the model is spread); the number of copies, their executor and the scheduler's
knobs are array axes. Nothing here launches, reads a clock for a decision, or keeps state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from tuner.ask.cluster import Cluster, Fleet, usd_per_million_tokens
from tuner.ask.deployment import Deployment, one_group
from tuner.ask.layout import AXES, IDLE_AXES, ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Metric, Objective, TuneRequest
from tuner.ask.requested_model import require_sequences_fit
from tuner.ask.rules import Drop, DropReason, illegal
from tuner.ask.space import Space
from tuner.cost.latency import StepCosts
from tuner.cost.steady import Floats, Shapes, load_curve
from tuner.cost.switches import EngineSwitches
from tuner.cost.techniques import NONE, Techniques
from tuner.errors import BadInput
from tuner.plan.front_choice import Fronts, best_fronts
from tuner.plan.ranking import columns, contenders, of_each_shape, smallest
from tuner.plan.replica_prices import MARGIN, Knobs, ReplicaPrices, price

__all__ = ["KEPT", "MARGIN", "Candidate", "DroppedGroup", "Plan", "Prediction", "plan"]

KEPT = 64  # candidates handed on; as many that would win if they were faster by ``MARGIN``, and as many other shapes
_replica = attrgetter(*(name for name in AXES if name not in (*IDLE_AXES, "dp")))
MOST_GROUPS = 24  # drops are told by degrees of parallelism as long as there are no more groups than this


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the closed form says of one layout, in ms and requests/s of the whole deployment.

    ``ttft_ms`` and ``tpot_ms`` are means at the asked rate (None: it cannot carry that rate), ``idle_*`` those of one
    request alone, ``goodput_req_per_s`` the highest rate within the SLO. ``steps`` has, for each rate of the load
    steps, the values of ``request.shown_metrics`` at their percentiles, in ms (None: it cannot carry that rate).
    ``sequences`` of the mean length is what one replica's cache and its limits hold at a time (None: not told). All but
    the idle figures and that are the simulator's where ``simulated`` (``tuner.plan.refine``).
    """

    idle_ttft_ms: float
    idle_tpot_ms: float
    ttft_ms: float | None
    tpot_ms: float | None
    goodput_req_per_s: float
    kv_tokens: int
    meets_slo: bool
    steps: tuple[tuple[float | None, ...], ...]
    simulated: bool = False
    sequences: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A layout that was kept, with its prediction.

    ``what_if`` names the techniques that the prediction supposes; with any, the layout cannot be launched as priced.
    ``usd_per_million_tokens`` is per output tokens at the asked rate, None where the layout cannot carry it.
    """

    deployment: Deployment
    prediction: Prediction
    what_if: tuple[str, ...] = ()
    usd_per_hour: float | None = None
    usd_per_million_tokens: float | None = None

    @property
    def layout(self) -> ParallelLayout:
        """The layout of a deployment that is one engine group; raises BadInput of two pools."""
        return one_group(self.deployment)


@dataclass(frozen=True, slots=True)
class DroppedGroup:
    """Candidates dropped for one reason: how many, and the first of them with its figure."""

    reason: DropReason
    count: int
    example: ParallelLayout
    figure: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The space, sorted: ``ranked`` best first. With ``what_if`` it is a thought, not something to launch or emit."""

    candidates: int
    ranked: tuple[Candidate, ...]
    dropped: tuple[DroppedGroup, ...]
    seconds: float
    what_if: tuple[str, ...] = ()


class _Drops:
    """Counts drops by reason and degrees of parallelism; in a large space by reason alone."""

    def __init__(self) -> None:
        self._groups: dict[tuple[object, ...], DroppedGroup] = {}
        self._by_shape = True

    def add(self, reason: DropReason, count: int, example: ParallelLayout, figure: str) -> None:
        """Count; the smallest example of a group stays, with its figure."""
        if not count:
            return
        key = (reason, example.shape) if self._by_shape else (reason,)
        known = self._groups.get(key)
        if known is None:
            self._groups[key] = DroppedGroup(reason, count, example, figure)
        elif _smaller(example, known.example):
            self._groups[key] = DroppedGroup(reason, known.count + count, example, figure)
        else:
            self._groups[key] = replace(known, count=known.count + count)
        if self._by_shape and len(self._groups) > MOST_GROUPS:
            finer, self._groups, self._by_shape = self._groups, {}, False
            for group in finer.values():
                self.add(group.reason, group.count, group.example, group.figure)

    def groups(self) -> tuple[DroppedGroup, ...]:
        """All groups, by reason and size."""
        reasons = list(DropReason)
        return tuple(sorted(self._groups.values(), key=lambda g: (reasons.index(g.reason), g.example)))


def _smaller(layout: ParallelLayout, other: ParallelLayout) -> bool:
    """By devices, then by degrees."""
    if layout.devices != other.devices:
        return layout.devices < other.devices
    return layout.shape < other.shape


def plan(
    request: TuneRequest,
    model: ModelShape,
    cluster: Cluster | Fleet,
    space: Space,
    keep: int = KEPT,
    techniques: Techniques = NONE,
) -> Plan:
    """Price the whole space, on every node group of the cluster. Raises BadInput when no point of it is legal.

    With ``techniques``, the plan is what it would be if the engine had them, and says so in ``what_if``.
    """
    started = time.perf_counter()
    require_sequences_fit(request, model)
    drops = _Drops()
    total, priced = price_all(request, model, cluster, space, techniques, drops)
    if not priced:
        reasons = "; ".join(f"{g.example}: {g.figure}" for g in drops.groups()[:3])
        raise BadInput("space", f"{total} candidates, none legal ({reasons})", "at least one layout that fits")
    ranked = _rank(request, priced, drops, keep)
    if techniques:
        ranked = tuple(replace(candidate, what_if=techniques.names) for candidate in ranked)
    return Plan(total, ranked, drops.groups(), time.perf_counter() - started, techniques.names)


def price_all(
    request: TuneRequest,
    model: ModelShape,
    cluster: Cluster | Fleet,
    space: Space,
    techniques: Techniques = NONE,
    drops: _Drops | None = None,
) -> tuple[int, list[ReplicaPrices]]:
    """(candidates in all, the legal ones priced by replica); ``drops`` is told of those that a rule refuses."""
    knobs, total, priced = Knobs.of(space), 0, list[ReplicaPrices]()
    for group in cluster.groups:
        costs = StepCosts(model, group, switches=EngineSwitches.asked(request.engine), techniques=techniques)

        def verdict(structure: ParallelLayout, group: Cluster = group) -> Drop | None:
            fitting = knobs.fitting(structure)
            return techniques.verdict(model, fitting, illegal(model, fitting, group))

        told = _Drops() if drops is None else drops
        count, replicas = _legal(space.on(group.gpu), knobs, verdict, told)
        shapes = _shapes(request, knobs, {engines[0][0].pp for engines in replicas}, techniques)
        for engines in replicas:
            curve = load_curve(costs, engines[0][0], shapes[engines[0][0].pp])
            members = best_fronts(request, group, engines, curve, knobs.count, told.add)
            priced.append(price(request, costs, members, curve, knobs))
        total += count
    return total, priced


def _shapes(request: TuneRequest, knobs: Knobs, depths: set[int], techniques: Techniques) -> dict[int, Shapes]:
    """The steps to price by pipeline depth; depths that cut a prompt alike share the prefill step."""
    slices = {pp: techniques.slices(pp) for pp in depths}
    by_slices = {pieces: Shapes.of(request, knobs.limits, 1, pieces) for pieces in set(slices.values())}
    return {pp: by_slices[slices[pp]].for_stages(pp) for pp in depths}


def _legal(
    space: Space, knobs: Knobs, verdict: Callable[[ParallelLayout], Drop | None], drops: _Drops
) -> tuple[int, list[list[Fronts]]]:
    """Candidates in all, and the engines that the rules let through, by replica, each behind the paths that they let
    through.

    Replicas that share no experts do not know of each other, and what is not served differently costs the same.
    """
    total, found = 0, dict[tuple[object, ...], list[Fronts]]()
    for engine in space.engines.structures():
        allowed = []
        for structure in space.fronts(engine):
            total += knobs.count
            drop = verdict(structure)
            if drop is None:
                allowed.append(structure)
            else:
                drops.add(drop.reason, knobs.count, structure, drop.figure)
        if allowed:
            found.setdefault((*_replica(engine), engine.dp if engine.ep else 1), []).append(tuple(allowed))
    return total, list(found.values())


def _rank(request: TuneRequest, priced: Sequence[ReplicaPrices], drops: _Drops, keep: int) -> tuple[Candidate, ...]:
    for replica in priced:
        for reason, count, first in replica.dropped():
            for member in replica.members:
                drops.add(reason, count, replica.knobs.layout(member, first), replica.figures[reason])
    kept = [replica.kept() for replica in priced]
    owner = np.repeat(np.arange(len(priced)), [k.size for k in kept])
    if not owner.size:
        return ()
    flat = np.concatenate(kept)
    keys = columns(request, priced, kept)
    order = smallest(keys, keep + 1)
    beaten = order.pop() if owner.size > keep else None
    chosen = [_candidate(request, priced[owner[i]], int(flat[i])) for i in order]
    if beaten is None:
        return tuple(chosen)
    rivals, whole = contenders(request, priced, kept, keys, order, keep)
    shapes = of_each_shape(priced, kept, keys, [*order, *rivals], keep)
    others = [*rivals, *shapes]
    left = int(owner.size - keep - len(others))
    if left:
        rest = beaten
        if beaten in others:
            taken = {*order, *others}
            rest = next(i for i in smallest(keys, keep + len(others) + 1) if i not in taken)
        example = _candidate(request, priced[owner[rest]], int(flat[rest]))
        figure = f"{_merit(request, example)}; the best has {_merit(request, chosen[0])} and {keep} come before it"
        figure += f"; even {MARGIN:g} × faster, none of these would win" if whole else ""
        drops.add(DropReason.OUTRANKED, left, example.layout, figure)
    return (*chosen, *(_candidate(request, priced[owner[i]], int(flat[i])) for i in others))


def _candidate(request: TuneRequest, priced: ReplicaPrices, flat: int) -> Candidate:
    member, row, column = (int(i) for i in np.unravel_index(flat, priced.ttft_ms.shape))

    def value(values: Floats) -> float | None:
        found = float(values[member, row, column])
        return found if np.isfinite(found) else None

    prediction = Prediction(
        idle_ttft_ms=float(priced.behind.idle_ms(Metric.TTFT)[priced.place[member], row]),
        idle_tpot_ms=priced.curve.idle_tpot_ms,
        ttft_ms=value(priced.ttft_ms),
        tpot_ms=value(priced.tpot_ms),
        goodput_req_per_s=float(priced.goodput[member, row, column]),
        kv_tokens=int(priced.kv_tokens[row, column]),
        meets_slo=bool(priced.meets[member, row, column]),
        steps=_steps(request, priced, member, row, column),
        sequences=float(np.broadcast_to(priced.cap, priced.kv_tokens.shape)[row, column]),
    )
    layout = priced.knobs.layout(priced.members[member], row * priced.knobs.seqs.size + column)
    price = priced.costs.cluster.usd_per_gpu_hour
    usd = None if price is None else price * layout.devices
    tokens_per_s = request.workload.arrival.requests_per_s * request.workload.output_tokens.mean
    each = None if usd is None or prediction.ttft_ms is None else usd_per_million_tokens(usd, tokens_per_s)
    return Candidate(layout, prediction, usd_per_hour=usd, usd_per_million_tokens=each)


def _steps(
    request: TuneRequest, priced: ReplicaPrices, member: int, row: int, column: int
) -> tuple[tuple[float | None, ...], ...]:
    """For each rate of the load steps the shown metrics in ms; None at rates that the layout cannot carry."""
    rates = np.array(request.rates_req_per_s)
    at = priced.behind.deployment(int(priced.place[member]), row).at(rates)
    carried = (at.batch[:, 0] <= priced.cap[row, column]) & at.load.carries[:, 0]
    columns = []
    for metric, percentile in request.shown_metrics:
        values = at.value(metric, percentile)[:, 0]
        columns.append([float(v) if ok else None for v, ok in zip(values, carried, strict=True)])
    return tuple(zip(*columns, strict=True))


def _merit(request: TuneRequest, candidate: Candidate) -> str:
    prediction = candidate.prediction
    if request.objective is Objective.MAX_GOODPUT:
        return f"{prediction.goodput_req_per_s:.2f} requests/s within the SLO"
    if prediction.ttft_ms is None or prediction.tpot_ms is None:
        return f"{prediction.goodput_req_per_s:.2f} requests/s within the SLO, below the asked rate"
    cost = f"{candidate.layout.devices} devices"
    if request.objective is Objective.MIN_COST and candidate.usd_per_hour is not None:
        cost = f"{candidate.usd_per_hour:.2f} US dollars per hour"
    return f"{cost}, TTFT {prediction.ttft_ms:.0f} ms, TPOT {prediction.tpot_ms:.1f} ms"
