"""One replica at a steady load, for every number of replicas and every scheduler limit of the space at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tuner.ask.layout import FRONT_AXES, ParallelLayout
from tuner.ask.request import Metric, TuneRequest
from tuner.ask.rules import DropReason, unchunked
from tuner.ask.slo import within
from tuner.ask.space import Space
from tuner.cost.front_curve import CurveBehind
from tuner.cost.front_path import Path
from tuner.cost.latency import StepCosts
from tuner.cost.memory import MemoryEstimate, estimate_memory
from tuner.cost.steady import BATCHES, Curve, Floats

MARGIN = 1.5  # a latency must miss its target by this factor before the model alone may drop a candidate
_REASONS = tuple(DropReason)
_SLO_REASON = {
    Metric.TTFT: DropReason.SLO_TTFT,
    Metric.TPOT: DropReason.SLO_TPOT,
    Metric.ITL: DropReason.SLO_TPOT,
    Metric.E2E: DropReason.SLO_E2E,
}


@dataclass(frozen=True, slots=True)
class Knobs:
    """The scheduler's limits in the space: tokens per step and sequences per replica, every pair a candidate."""

    limits: Floats
    seqs: Floats

    @classmethod
    def of(cls, space: Space) -> Knobs:
        """The knob axes of a space."""
        limits, seqs = space.values("max_num_batched_tokens"), space.values("max_num_seqs")
        return cls(np.array(limits, dtype=float), np.array(seqs, dtype=float))

    @property
    def count(self) -> int:
        """Pairs."""
        return self.limits.size * self.seqs.size

    def layout(self, structure: ParallelLayout, pair: int) -> ParallelLayout:
        """The structure with one pair of limits (chunk limits are the slower axis)."""
        row, column = divmod(pair, self.seqs.size)
        return replace(
            structure, max_num_batched_tokens=int(self.limits[row]), max_num_seqs=int(self.seqs[column])
        )  # fmt: skip

    def fitting(self, structure: ParallelLayout) -> ParallelLayout:
        """The structure with limits that suit each other, if any pair of the space does."""
        if structure.max_num_batched_tokens >= structure.max_num_seqs:
            return structure
        return replace(
            structure, max_num_batched_tokens=int(self.limits.max()), max_num_seqs=int(self.seqs.min())
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReplicaPrices:
    """A replica with all its deployments: arrays of (``members``, chunk limits, sequence limits), without the first
    axis where the number of replicas does not matter.

    ``behind`` is its curve behind the path of each member, of those with one path once; ``place`` says where each is.
    ``costs`` priced its steps, on its node group. ``members`` differ in the number of replicas and in the executor.
    ``cap`` is how many sequences a replica can hold. ``ttft_ms`` and ``tpot_ms`` are means at the asked rate, NaN where
    it cannot be carried. ``why`` is 0 where kept, else 1 + the index of a DropReason, whose figure is in ``figures``.
    """

    costs: StepCosts
    members: Sequence[ParallelLayout]
    knobs: Knobs
    behind: CurveBehind
    place: NDArray[np.intp]
    cap: Floats
    kv_tokens: Floats
    ttft_ms: Floats
    tpot_ms: Floats
    goodput: Floats
    meets: NDArray[np.bool_]
    why: NDArray[np.uint8]
    figures: dict[DropReason, str]

    @property
    def curve(self) -> Curve:
        """The engine's own load curve."""
        return self.behind.curve

    def kept(self) -> NDArray[np.intp]:
        """Flat indices, over all three axes, of the candidates that stay."""
        pairs = np.flatnonzero(self.why.ravel() == 0)
        return np.asarray((np.arange(len(self.members))[:, None] * self.knobs.count + pairs).ravel())

    def dropped(self) -> Iterator[tuple[DropReason, int, int]]:
        """(reason, knob pairs dropped for it in every member, the first of them)."""
        codes = self.why.ravel()
        for code in np.flatnonzero(np.bincount(codes)):
            if code:
                yield _REASONS[code - 1], int((codes == code).sum()), int(np.argmax(codes == code))


def price(
    request: TuneRequest, costs: StepCosts, members: Sequence[ParallelLayout], curve: Curve, knobs: Knobs
) -> ReplicaPrices:
    """What the curve of one replica means for all its deployments and scheduler limits, each behind its path."""
    output = float(request.workload.output_tokens.mean)
    limits, seqs = knobs.limits[:, None], knobs.seqs[None, :]
    memory = estimate_memory(costs.model, members[0], costs.cluster, request.engine, limits, seqs)
    memory = costs.techniques.memory(costs.model, members[0], request.engine, memory)
    held = request.engine.held_tokens(request.workload.prompt_tokens.mean + output)
    cap: Floats = np.minimum(seqs, memory.kv_tokens / memory.sequence.tokens_of(held, request.engine.block_tokens))
    behind, place = _behind(costs, members, curve, output)
    replicas = behind.replicas
    asked = behind.at(request.workload.arrival.requests_per_s)
    carries = np.ones((replicas.size, *curve.rate_req_per_s.shape), dtype=bool)
    asked_ok = np.ones((replicas.size, knobs.limits.size), dtype=bool)
    for target in request.slo:
        carries &= within(target, behind.on_curve(target.metric, target.percentile))
        asked_ok &= within(target, asked.value(target.metric, target.percentile))
    ttft, tpot = asked.value(Metric.TTFT, None), asked.value(Metric.TPOT, None)
    carried = (asked.batch[..., None] <= cap) & asked.load.carries[..., None]
    reach = np.maximum.accumulate(np.where(carries, curve.rate_req_per_s, 0.0), axis=-1)
    column = np.clip(np.searchsorted(BATCHES, cap, side="right") - 1, 0, BATCHES.size - 1)
    goodput = np.where(cap >= 1, np.take_along_axis(reach, column[None], axis=-1), 0.0) * replicas[:, None, None]
    why, figures = _drops(request, knobs, behind, memory)
    return ReplicaPrices(
        costs=costs,
        members=members,
        knobs=knobs,
        behind=behind,
        place=place,
        cap=cap,
        kv_tokens=np.broadcast_to(memory.kv_tokens, cap.shape),
        ttft_ms=np.where(carried, ttft[..., None], np.nan)[place],
        tpot_ms=np.where(carried, tpot[..., None], np.nan)[place],
        goodput=goodput[place],
        meets=(carried & asked_ok[..., None] & (why == 0))[place],
        why=why,
        figures=figures,
    )


def _behind(
    costs: StepCosts, members: Sequence[ParallelLayout], curve: Curve, output: float
) -> tuple[CurveBehind, NDArray[np.intp]]:
    """The curve behind each path that members have, and which of them is whose."""
    known: dict[tuple[object, ...], int] = {}
    keys = [tuple(getattr(member, axis) for axis in ("dp", *FRONT_AXES)) for member in members]
    place = np.array([known.setdefault(key, len(known)) for key in keys])
    first = [members[keys.index(key)] for key in known]
    paths = [Path.of(member, costs.cluster) for member in first]
    return CurveBehind(curve, paths, [float(member.dp) for member in first], output), place


def _drops(
    request: TuneRequest, knobs: Knobs, behind: CurveBehind, memory: MemoryEstimate
) -> tuple[NDArray[np.uint8], dict[DropReason, str]]:
    """Per chunk and sequence limit: the code of the reason that rules it out, or 0; and the reasons' figures."""
    limits, seqs = knobs.limits[:, None], knobs.seqs[None, :]
    shape = (limits.size, seqs.size)
    slo_why, figures = _slo_verdicts(request, behind)
    why = np.broadcast_to(slo_why[:, None], shape).copy()
    longest, block = request.engine.held_tokens(request.max_model_len), request.engine.block_tokens
    misfits = np.broadcast_to(memory.kv_tokens < memory.sequence.tokens_of(longest, block), shape)
    if misfits.any():
        why[misfits] = _code(DropReason.MEMORY)
        figures[DropReason.MEMORY] = memory.misfit(int(np.argmax(misfits)), longest, block) or ""
    figures[DropReason.SCHEDULER] = "max_num_batched_tokens below max_num_seqs"
    cut = np.array([[unchunked(request, int(limit)) is not None] for limit in knobs.limits])
    if cut.any():
        figures[DropReason.SCHEDULER] = unchunked(request, int(knobs.limits[cut[:, 0]].min())) or ""
    why[cut | (limits < seqs)] = _code(DropReason.SCHEDULER)
    return why, figures


def _code(reason: DropReason) -> int:
    return 1 + _REASONS.index(reason)


def _slo_verdicts(request: TuneRequest, behind: CurveBehind) -> tuple[NDArray[np.uint8], dict[DropReason, str]]:
    """Per chunk limit: the code of the target that even an idle engine misses by far behind every path, or 0; and the
    figures."""
    idle = {target.metric: behind.idle_ms(target.metric).min(axis=0) for target in request.slo}
    why = np.zeros(behind.curve.idle_ttft_ms.shape, dtype=np.uint8)
    figures: dict[DropReason, str] = {}
    for target in request.slo:
        missed = ~within(target, idle[target.metric], MARGIN)
        reason = _SLO_REASON[target.metric]
        if missed.any() and reason not in figures:
            worst = float(idle[target.metric][missed].min())
            figures[reason] = f"{target.metric.value} {worst:.1f} ms alone on an idle engine, target {target.ms:g} ms"
        why[missed & (why == 0)] = _code(reason)
    return why, figures
