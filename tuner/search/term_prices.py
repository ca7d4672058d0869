"""What every engine's steps cost, term by term, so that a factor on a term can be tried on all engines at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.ask.axes import Prices
from tuner.ask.cluster import Cluster, Fleet
from tuner.ask.layout import AXES, ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import TuneRequest
from tuner.cost.latency import StepCosts
from tuner.cost.steady import BATCHES, Curve, Floats, Shapes, curve_of
from tuner.cost.switches import EngineSwitches
from tuner.plan.prune import Candidate
from tuner.search.priors import unmeasured_terms

_UNPRICED = tuple(name for name, axis in AXES.items() if axis.prices is Prices.NONE)


@dataclass(frozen=True, slots=True)
class TermPrices:
    """Milliseconds of each engine by term, of all stages together and of the slowest: ``prefill`` of one chunk with
    axes (engines, terms), ``decode`` with a last axis of ``BATCHES``. ``index`` says which engine is which,
    ``unmeasured`` which terms stand on what was not measured on their device (``tuner.search.priors``), ``clusters``
    where layouts of each GPU live."""

    terms: tuple[str, ...]
    index: Mapping[ParallelLayout, int]
    prefill: tuple[Floats, Floats]
    decode: tuple[Floats, Floats]
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
        known: dict[object, tuple[Any, ...]] = {}
        rows, columns = [], []
        for layout in index:
            replica = replace(layout, max_num_batched_tokens=limits[-1], dp=layout.dp if layout.ep else 1)
            if replica not in known:
                shape = deep[layout.pp]
                priced = [costs[layout.gpu].stages(replica, step) for step in (shape.prefill, shape.decode)]
                own = f"{layout.gpu} " if layout.gpu else ""
                known[replica] = (*_by_term(priced[0], (len(limits),), own), *_by_term(priced[1], BATCHES.shape, own))
            rows.append(known[replica])
            columns.append(limits.index(layout.max_num_batched_tokens))
        terms = tuple(dict.fromkeys(name for row in rows for part in row for name in part))

        def table(part: int, column: int | None) -> Floats:
            empty = np.zeros(BATCHES.shape)
            found = [[row[part].get(name, empty) for name in terms] for row in rows]
            if column is None:
                return np.array(found)
            return np.array([[v[c] if v is not empty else 0.0 for v in line]
                             for line, c in zip(found, columns, strict=True)])  # fmt: skip

        prompt = float(request.workload.prompt_tokens.mean)
        return cls(
            terms, index, (table(0, 0), table(1, 0)), (table(2, None), table(3, None)),
            shapes.chunks[columns], np.array([float(layout.pp) for layout in index]),
            np.array([float(layout.dp) for layout in index]),
            np.array([costs[layout.gpu].cluster.profile.engine.handling_ms(prompt) for layout in index]),
            float(request.workload.output_tokens.mean),
            frozenset(name for group in cluster.groups for name in _unmeasured(group, model, terms)),
            {group.gpu: group for group in cluster.groups},
        )  # fmt: skip

    def curve(self, factors: Floats, engines: NDArray[np.intp]) -> Curve:
        """The load curves of engines under each row of ``factors``, the engines of a row together."""
        chunks = self.chunks[engines]
        whole, slowest = (factors @ part[engines].T for part in self.prefill)
        idle_ms = self.request_ms[engines] + whole + (chunks - 1) * slowest
        steps, longest = (np.einsum("sk,ekb->seb", factors, part[engines], optimize=True) for part in self.decode)
        step_ms = np.maximum(steps, np.minimum(BATCHES, self.stages[engines][:, None]) * longest)
        rows = step_ms.reshape(-1, BATCHES.size)
        return curve_of(idle_ms.ravel(), (chunks * slowest).reshape(-1, 1), rows, self.output_tokens)


def _unmeasured(group: Cluster, model: ModelShape, terms: Sequence[str]) -> set[str]:
    """Those of a group's own terms, which have its GPU's name before theirs where there are several groups."""
    own = f"{group.gpu} " if group.gpu else ""
    names = {name: name.removeprefix(own) for name in terms if name.startswith(own)}
    found = unmeasured_terms(group.profile, model, names.values())
    return {name for name, short in names.items() if short in found}


def _by_term(stages: Sequence[Mapping[str, Floats]], shape: tuple[int, ...], own: str) -> tuple[dict[str, Floats], ...]:
    """Terms of all stages together, and of the slowest; named by the GPU, too, where there are several."""
    whole: dict[str, Floats] = {}
    for terms in stages:
        for name, value in terms.items():
            whole[own + name] = whole.get(own + name, np.zeros(shape)) + np.broadcast_to(value, shape)
    slowest = max(stages, key=lambda terms: sum(float(np.sum(value)) for value in terms.values()))
    return whole, {own + name: np.broadcast_to(value, shape) for name, value in slowest.items()}


def engine_of(layout: ParallelLayout) -> ParallelLayout:
    """What decides a layout's steps: neither the executor nor the number of sequences it may hold."""
    return layout.without(_UNPRICED)


def kin_of(layout: ParallelLayout) -> ParallelLayout:
    """Engines of which this is the same run the same kernels on as many devices under the same load: they differ in how
    much one step may hold."""
    return engine_of(layout).without(("max_num_batched_tokens",))
