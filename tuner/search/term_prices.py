"""What every engine's steps cost, term by term, so that a factor on a term can be tried on all engines at once.

A step lasts as long as its GPU's work or as the host takes to launch it, whichever is longer: which one it is may be
another under other factors, so the host's whole time is kept beside the terms (``StepCosts.host_sides``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tuner.ask.axes import Prices
from tuner.ask.cluster import Cluster, Fleet
from tuner.ask.layout import AXES, ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import TuneRequest
from tuner.cost.latency import StepCosts
from tuner.cost.steady import BATCHES, Curve, Floats, Shapes, curve_of
from tuner.cost.step_batch import StepShape, Terms, total
from tuner.cost.switches import EngineSwitches
from tuner.plan.prune import Candidate
from tuner.search.priors import unmeasured_terms

_HOST = "host"
_ROUNDING = 1e-9
_UNPRICED = tuple(name for name, axis in AXES.items() if axis.prices is Prices.NONE)


@dataclass(frozen=True, slots=True)
class Work:
    """Milliseconds of one step of each engine by term, with axes (engines, terms) and those of the step; of the host's
    time the terms have what is added to a step. ``host``, without the axis of terms, is all of it, launching included.
    """

    terms: Floats
    host: Floats

    def ms(self, factors: Floats, host: Floats, engines: NDArray[np.intp]) -> Floats:
        """Of some engines with factors on the terms (draws, terms), and each engine's on its ``host``."""
        steps = np.einsum("sk,ek...->se...", factors, self.terms[engines], optimize=True)
        alone = self.host[engines]
        return np.asarray(np.maximum(steps, host.reshape(*host.shape, *[1] * (alone.ndim - 1)) * alone))


@dataclass(frozen=True, slots=True)
class TermPrices:
    """What steps of each engine take, of all stages together and of the slowest: a ``prefill`` of one chunk, and a
    ``decode`` with a last axis of ``BATCHES``. ``index`` says which engine is which, ``host`` which of the terms is its
    host, ``unmeasured`` which terms stand on what was not measured on their device (``tuner.search.priors``),
    ``clusters`` where layouts of each GPU live."""

    terms: tuple[str, ...]
    index: Mapping[ParallelLayout, int]
    prefill: tuple[Work, Work]
    decode: tuple[Work, Work]
    host: NDArray[np.intp]
    chunks: Floats
    stages: Floats
    replicas: Floats
    request_ms: Floats
    output_tokens: float
    unmeasured: frozenset[str] = frozenset()
    clusters: Mapping[str | None, Cluster] = field(default_factory=dict)

    @classmethod
    def of(
        cls, request: TuneRequest, candidates: Sequence[Candidate], model: ModelShape, cluster: Cluster | Fleet
    ) -> TermPrices:
        """Priced by the model; replicas that share no experts cost the same, however many there are."""
        index: dict[ParallelLayout, int] = {}
        for candidate in candidates:
            index.setdefault(engine_of(candidate.layout), len(index))
        limits = sorted({layout.max_num_batched_tokens for layout in index})
        shapes = Shapes.of(request, np.array(limits, dtype=float), 1)
        switches = EngineSwitches.asked(request.engine)
        costs = {group.gpu: StepCosts(model, group, switches=switches) for group in cluster.groups}
        deep = {pp: shapes.for_stages(pp) for pp in {layout.pp for layout in index}}
        known: dict[object, tuple[_Priced, _Priced]] = {}
        rows, columns = [], []
        for layout in index:
            replica = replace(layout, max_num_batched_tokens=limits[-1], dp=layout.dp if layout.ep else 1)
            if replica not in known:
                shape, own = deep[layout.pp], _own(layout.gpu)
                known[replica] = (
                    _Priced.of(costs[layout.gpu], replica, shape.prefill, (len(limits),), own),
                    _Priced.of(costs[layout.gpu], replica, shape.decode, BATCHES.shape, own),
                )
            rows.append(known[replica])
            columns.append(limits.index(layout.max_num_batched_tokens))
        terms = tuple(dict.fromkeys(name for row in rows for priced in row for part in priced.terms for name in part))
        chunk = [priced.at(c) for (priced, _), c in zip(rows, columns, strict=True)]
        batches = [priced for _, priced in rows]
        prompt = float(request.workload.prompt_tokens.mean)
        return cls(
            terms, index, (_work(terms, chunk, 0), _work(terms, chunk, 1)),
            (_work(terms, batches, 0), _work(terms, batches, 1)),
            np.array([terms.index(_own(layout.gpu) + _HOST) for layout in index]),
            shapes.chunks[columns], np.array([float(layout.pp) for layout in index]),
            np.array([float(layout.dp) for layout in index]),
            np.array([costs[layout.gpu].cluster.profile.engine.handling_ms(prompt) for layout in index]),
            float(request.workload.output_tokens.mean),
            frozenset(name for group in cluster.groups for name in _unmeasured(group, model, terms)),
            {group.gpu: group for group in cluster.groups},
        )  # fmt: skip

    def curve(self, factors: Floats, engines: NDArray[np.intp]) -> Curve:
        """The load curves of engines under each row of ``factors``, the engines of a row together."""
        chunks, host = self.chunks[engines], factors[:, self.host[engines]]
        whole, slowest = (work.ms(factors, host, engines) for work in self.prefill)
        idle_ms = self.request_ms[engines] + whole + (chunks - 1) * slowest
        steps, longest = (work.ms(factors, host, engines) for work in self.decode)
        step_ms = np.maximum(steps, np.minimum(BATCHES, self.stages[engines][:, None]) * longest)
        rows = step_ms.reshape(-1, BATCHES.size)
        return curve_of(idle_ms.ravel(), (chunks * slowest).reshape(-1, 1), rows, self.output_tokens)


def _work(terms: Sequence[str], priced: Sequence[_Priced], part: int) -> Work:
    empty = np.zeros(priced[0].host[part].shape)
    table = [[one.terms[part].get(name, empty) for name in terms] for one in priced]
    return Work(np.array(table), np.array([one.host[part] for one in priced]))


@dataclass(frozen=True, slots=True)
class _Priced:
    """A step of one engine, of all stages together and of the slowest: its ``terms``, the host's without launching, and
    the time of the ``host`` alone. Where a stage waits for its host, that is the step as it is priced."""

    terms: tuple[Terms, Terms]
    host: tuple[Floats, Floats]

    @classmethod
    def of(cls, costs: StepCosts, layout: ParallelLayout, step: StepShape, shape: tuple[int, ...], own: str) -> _Priced:
        """Arrays of ``shape``, with names that begin with ``own``."""
        stages, parts = costs.stages(layout, step), list[tuple[Terms, Floats, Floats]]()
        for terms, (added, launch) in zip(stages, costs.host_sides(layout, step), strict=True):
            terms_ms = {own + name: np.broadcast_to(value, shape) for name, value in terms.items()}
            lasts = np.broadcast_to(total(terms), shape)
            parts.append((terms_ms | {own + _HOST: np.broadcast_to(added, shape)}, added + launch, lasts))
        whole: Terms = {}
        for terms, _, _ in parts:
            for name, value in terms.items():
                whole[name] = whole.get(name, np.zeros(shape)) + value
        alone = sum((host for _, host, _ in parts), np.zeros(shape))
        lasts = sum((ms for _, _, ms in parts), np.zeros(shape))
        waits = lasts > sum(whole.values()) * (1 + _ROUNDING)
        slowest = max(parts, key=lambda part: float(np.sum(part[2])))
        return cls((whole, slowest[0]), (np.where(waits, lasts, alone), np.broadcast_to(slowest[1], shape)))

    def at(self, column: int) -> _Priced:
        """Of one chunk limit."""
        whole, slowest = ({name: ms[column] for name, ms in terms.items()} for terms in self.terms)
        return _Priced((whole, slowest), (self.host[0][column], self.host[1][column]))


def _unmeasured(group: Cluster, model: ModelShape, terms: Sequence[str]) -> set[str]:
    """Those of a group's own terms, which have its GPU's name before theirs where there are several groups."""
    own = _own(group.gpu)
    names = {name: name.removeprefix(own) for name in terms if name.startswith(own)}
    found = unmeasured_terms(group.profile, model, names.values())
    return {name for name, short in names.items() if short in found}


def _own(gpu: str | None) -> str:
    """How names of a GPU's terms begin: with its name, where there are several."""
    return f"{gpu} " if gpu else ""


def engine_of(layout: ParallelLayout) -> ParallelLayout:
    """What decides a layout's steps: neither the executor nor the number of sequences it may hold."""
    return layout.without(_UNPRICED)


def kin_of(layout: ParallelLayout) -> ParallelLayout:
    """Engines of which this is the same run the same kernels on as many devices under the same load: they differ in how
    much one step may hold."""
    return engine_of(layout).without(("max_num_batched_tokens",))
