"""The funnel before launch: every point of the space is priced, and each that cannot win is dropped with its figure.

Work is done per structure (how the model is spread); the scheduler's knobs are array axes. Nothing here launches,
reads a clock for a decision, or keeps state.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tuner.cluster import Cluster
from tuner.cost.latency import StepCosts
from tuner.cost.memory import estimate_memory
from tuner.cost.steady import BATCHES, Curve, Shapes, interpolate, load_curve
from tuner.cost.techniques import NONE, Techniques
from tuner.errors import BadInput
from tuner.layout import ParallelLayout
from tuner.model import ModelShape
from tuner.request import Metric, Objective, TuneRequest
from tuner.rules import DropReason, illegal
from tuner.space import Space

Floats = NDArray[np.float64]

MARGIN = 1.5  # a latency must miss its target by this factor before the model alone may drop a candidate
KEPT = 64  # candidates handed on
MOST_GROUPS = 24  # drops are told by degrees of parallelism as long as there are no more groups than this
_SLO_REASON = {
    Metric.TTFT: DropReason.SLO_TTFT,
    Metric.TPOT: DropReason.SLO_TPOT,
    Metric.ITL: DropReason.SLO_TPOT,
    Metric.E2E: DropReason.SLO_E2E,
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the closed form says of one layout, in ms and requests/s of the whole deployment.

    ``ttft_ms`` and ``tpot_ms`` are means at the asked rate (None: it cannot carry that rate), ``idle_*`` those of one
    request alone, ``goodput_req_per_s`` the highest rate within the SLO. ``steps`` has, for each rate of the load
    steps, the values of ``request.shown_metrics`` at their percentiles, in ms (None: it cannot carry that rate).
    """

    idle_ttft_ms: float
    idle_tpot_ms: float
    ttft_ms: float | None
    tpot_ms: float | None
    goodput_req_per_s: float
    kv_tokens: int
    meets_slo: bool
    steps: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A layout that was kept, with its prediction.

    ``what_if`` names the techniques that the prediction supposes; with any, the layout cannot be launched as priced.
    """

    layout: ParallelLayout
    prediction: Prediction
    what_if: tuple[str, ...] = ()


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

    def add(self, reason: DropReason, count: int, example: ParallelLayout, figure: str) -> None:
        """Count; the first example and figure of a group stay."""
        if count:
            self._merge(self._groups, (reason, example.shape), DroppedGroup(reason, count, example, figure))

    def groups(self) -> tuple[DroppedGroup, ...]:
        """All groups, by reason and size."""
        found = self._groups
        if len(found) > MOST_GROUPS:
            found = {}
            for group in sorted(self._groups.values(), key=lambda g: g.example):
                self._merge(found, (group.reason,), group)
        return tuple(sorted(found.values(), key=lambda g: (list(DropReason).index(g.reason), g.example)))

    @staticmethod
    def _merge(groups: dict[tuple[object, ...], DroppedGroup], key: tuple[object, ...], group: DroppedGroup) -> None:
        known = groups.get(key)
        groups[key] = replace(known, count=known.count + group.count) if known else group


def plan(
    request: TuneRequest,
    model: ModelShape,
    cluster: Cluster,
    space: Space,
    keep: int = KEPT,
    techniques: Techniques = NONE,
) -> Plan:
    """Price the whole space. Raises BadInput when no point of it is legal.

    With ``techniques``, the plan is what it would be if the engine had them, and says so in ``what_if``.
    """
    started = time.perf_counter()
    if request.max_model_len > model.max_position:
        allowed = f"prompts and outputs that fit {model.max_position} tokens"
        raise BadInput("workload", f"{request.max_model_len} tokens", allowed)
    costs, drops = StepCosts(model, cluster, techniques=techniques), _Drops()
    limits = np.array(space.values("max_num_batched_tokens"), dtype=float)
    seqs = np.array(space.values("max_num_seqs"), dtype=float)
    shapes: dict[int, Shapes] = {}
    priced: list[_Priced] = []
    total = 0
    for structure in space.structures():
        total += limits.size * seqs.size
        fitting = replace(structure, max_num_batched_tokens=int(limits.max()), max_num_seqs=int(seqs.min()))
        drop = techniques.verdict(model, fitting, illegal(model, fitting, cluster))
        if drop is not None:
            drops.add(drop.reason, limits.size * seqs.size, structure, drop.figure)
            continue
        if structure.pp not in shapes:
            shapes[structure.pp] = Shapes.of(request, limits, structure.pp, techniques.slices(structure.pp))
        curve = load_curve(costs, structure, shapes[structure.pp])
        priced.append(_price(request, costs, structure, curve, limits, seqs))
    if not priced:
        reasons = "; ".join(f"{g.example}: {g.figure}" for g in drops.groups()[:3])
        raise BadInput("space", f"{total} candidates, none legal ({reasons})", "at least one layout that fits")
    ranked = _rank(request, priced, drops, keep)
    if techniques:
        ranked = tuple(replace(candidate, what_if=techniques.names) for candidate in ranked)
    return Plan(total, ranked, drops.groups(), time.perf_counter() - started, techniques.names)


@dataclass(frozen=True, slots=True)
class _Priced:
    """One structure, all its knobs: arrays of shape (chunk limits, sequence limits). ``why`` is 0 where kept, else
    1 + the index of a DropReason."""

    structure: ParallelLayout
    curve: Curve
    cap: Floats
    limits: Floats
    seqs: Floats
    idle_ttft_ms: Floats
    idle_tpot_ms: float
    ttft_ms: Floats
    tpot_ms: Floats
    goodput: Floats
    kv_tokens: Floats
    meets: NDArray[np.bool_]
    why: NDArray[np.uint8]
    figures: dict[DropReason, str]

    def layout(self, flat: int) -> ParallelLayout:
        row, column = divmod(flat, self.seqs.size)
        return replace(
            self.structure,
            max_num_batched_tokens=int(self.limits[row]),
            max_num_seqs=int(self.seqs[column]),
        )


def _code(reason: DropReason) -> int:
    return 1 + list(DropReason).index(reason)


def _price(
    request: TuneRequest, costs: StepCosts, structure: ParallelLayout, curve: Curve, limits: Floats, seqs: Floats
) -> _Priced:
    output, model = float(request.workload.output_tokens.mean), costs.model
    memory = estimate_memory(model, structure, costs.cluster, request.engine, limits[:, None], seqs[None, :])
    memory = costs.techniques.memory(model, structure, request.engine, memory)
    held = request.workload.prompt_tokens.mean + output
    cap: Floats = np.minimum(seqs[None, :], memory.kv_tokens / held)  # sequences that a replica can hold
    rate = request.workload.arrival.requests_per_s / structure.dp
    within = np.ones(curve.rate_req_per_s.shape, dtype=bool)
    asked_ok = np.ones(limits.size, dtype=bool)
    for target in request.slo:
        values = curve.at(target.metric, target.percentile, output)
        within &= values <= target.ms
        asked_ok &= interpolate(curve.rate_req_per_s, values, rate)[0] <= target.ms
    ttft, batch = interpolate(curve.rate_req_per_s, curve.at(Metric.TTFT, None, output), rate)
    tpot, _ = interpolate(curve.rate_req_per_s, curve.tpot_ms, rate)
    carried = batch[:, None] <= cap
    reach = np.maximum.accumulate(np.where(within, curve.rate_req_per_s, 0.0), axis=1)
    column = np.clip(np.searchsorted(BATCHES, cap, side="right") - 1, 0, BATCHES.size - 1)
    goodput = np.where(cap >= 1, np.take_along_axis(reach, column, axis=1), 0.0) * structure.dp
    why, figures = _verdicts(request, curve, memory_misfit=memory.misfit(0, request.max_model_len), output=output)
    grid = np.broadcast_to(why[:, None], cap.shape).copy()
    grid[memory.kv_tokens < request.max_model_len] = _code(DropReason.MEMORY)
    if DropReason.MEMORY not in figures and (memory.kv_tokens < request.max_model_len).any():
        first = int(np.argmax(memory.kv_tokens.ravel() < request.max_model_len))
        figures[DropReason.MEMORY] = memory.misfit(first, request.max_model_len) or ""
    grid[limits[:, None] < seqs[None, :]] = _code(DropReason.SCHEDULER)
    figures[DropReason.SCHEDULER] = "max_num_batched_tokens below max_num_seqs"
    return _Priced(
        structure=structure,
        curve=curve,
        cap=cap,
        limits=limits,
        seqs=seqs,
        idle_ttft_ms=np.broadcast_to(curve.idle_ttft_ms[:, None], cap.shape),
        idle_tpot_ms=curve.idle_tpot_ms,
        ttft_ms=np.where(carried, ttft[:, None], np.nan),
        tpot_ms=np.where(carried, tpot[:, None], np.nan),
        goodput=goodput,
        kv_tokens=np.broadcast_to(memory.kv_tokens, cap.shape),
        meets=carried & asked_ok[:, None] & (grid == 0),
        why=grid,
        figures=figures,
    )


def _verdicts(
    request: TuneRequest, curve: Curve, memory_misfit: str | None, output: float
) -> tuple[NDArray[np.uint8], dict[DropReason, str]]:
    """Per chunk limit: the code of the reason for which even an idle engine cannot win, or 0; and the figures."""
    why = np.zeros(curve.idle_ttft_ms.shape, dtype=np.uint8)
    figures: dict[DropReason, str] = {}
    if memory_misfit:
        figures[DropReason.MEMORY] = memory_misfit
    idle = {
        Metric.TTFT: curve.idle_ttft_ms,
        Metric.TPOT: np.full(why.shape, curve.idle_tpot_ms),
        Metric.ITL: np.full(why.shape, curve.idle_tpot_ms),
        Metric.E2E: curve.idle_ttft_ms + curve.idle_tpot_ms * max(output - 1, 0),
    }
    for target in request.slo:
        missed = idle[target.metric] > target.ms * MARGIN
        reason = _SLO_REASON[target.metric]
        if missed.any() and reason not in figures:
            worst = float(idle[target.metric][missed].min())
            figures[reason] = f"{target.metric.value} {worst:.1f} ms alone on an idle engine, target {target.ms:g} ms"
        why[missed & (why == 0)] = _code(reason)
    return why, figures


def _rank(request: TuneRequest, priced: Sequence[_Priced], drops: _Drops, keep: int) -> tuple[Candidate, ...]:
    reasons = list(DropReason)
    for structure in priced:
        for code, count in enumerate(np.bincount(structure.why.ravel(), minlength=len(reasons) + 1)):
            if code and count:
                first = structure.layout(int(np.argmax(structure.why.ravel() == code)))
                drops.add(reasons[code - 1], int(count), first, structure.figures[reasons[code - 1]])
    kept = [np.flatnonzero(s.why.ravel() == 0) for s in priced]
    owner = np.repeat(np.arange(len(priced)), [k.size for k in kept])
    if not owner.size:
        return ()
    flat = np.concatenate(kept)
    keys = [np.concatenate([column.ravel()[k] for column, k in zip(columns, kept, strict=True)])
            for columns in zip(*(_sort_keys(request, s) for s in priced), strict=True)]  # fmt: skip
    order = np.lexsort(keys[::-1])
    chosen = [(int(owner[i]), int(flat[i])) for i in order[:keep]]
    if order.size > keep:
        beaten = int(order[keep])
        best = _candidate(request, priced[chosen[0][0]], chosen[0][1])
        example = _candidate(request, priced[int(owner[beaten])], int(flat[beaten]))
        figure = f"{_merit(request, example)}; the best has {_merit(request, best)} and {keep} come before it"
        drops.add(DropReason.OUTRANKED, int(order.size - keep), example.layout, figure)
    return tuple(_candidate(request, priced[s], i) for s, i in chosen)


def _sort_keys(request: TuneRequest, priced: _Priced) -> list[Floats]:
    """Columns to sort by, smallest first, most important first; infinities where a layout cannot carry the rate."""
    latency = np.nan_to_num(
        priced.ttft_ms + priced.tpot_ms * max(request.workload.output_tokens.mean - 1, 0), nan=np.inf
    )
    misses = (~priced.meets).astype(float)
    devices = np.full(latency.shape, float(priced.structure.devices))
    if request.objective is Objective.MAX_GOODPUT:
        return [-np.round(priced.goodput, 6), latency, devices]
    if request.objective is Objective.MIN_LATENCY:
        return [misses, latency, devices]
    return [misses, np.where(priced.meets, devices, 0.0), -np.where(priced.meets, 0.0, priced.goodput), latency]


def _candidate(request: TuneRequest, priced: _Priced, flat: int) -> Candidate:
    def value(column: Floats) -> float | None:
        found = float(column.ravel()[flat])
        return found if np.isfinite(found) else None

    prediction = Prediction(
        idle_ttft_ms=float(priced.idle_ttft_ms.ravel()[flat]),
        idle_tpot_ms=priced.idle_tpot_ms,
        ttft_ms=value(priced.ttft_ms),
        tpot_ms=value(priced.tpot_ms),
        goodput_req_per_s=float(priced.goodput.ravel()[flat]),
        kv_tokens=int(priced.kv_tokens.ravel()[flat]),
        meets_slo=bool(priced.meets.ravel()[flat]),
        steps=tuple(_step_values(request, priced, flat, rate) for rate in request.rates_req_per_s),
    )
    return Candidate(priced.layout(flat), prediction)


def _step_values(request: TuneRequest, priced: _Priced, flat: int, rate: float) -> tuple[float | None, ...]:
    row = flat // priced.seqs.size
    output = float(request.workload.output_tokens.mean)
    rates = priced.curve.rate_req_per_s[row : row + 1]
    found = []
    for metric, percentile in request.shown_metrics:
        values = priced.curve.at(metric, percentile, output)[row : row + 1]
        value, batch = interpolate(rates, values, rate / priced.structure.dp)
        found.append(float(value[0]) if batch[0] <= priced.cap.ravel()[flat] else None)
    return tuple(found)


def _merit(request: TuneRequest, candidate: Candidate) -> str:
    prediction = candidate.prediction
    if request.objective is Objective.MAX_GOODPUT:
        return f"{prediction.goodput_req_per_s:.2f} requests/s within the SLO"
    if prediction.ttft_ms is None or prediction.tpot_ms is None:
        return f"{prediction.goodput_req_per_s:.2f} requests/s within the SLO, below the asked rate"
    return f"{candidate.layout.devices} devices, TTFT {prediction.ttft_ms:.0f} ms, TPOT {prediction.tpot_ms:.1f} ms"
