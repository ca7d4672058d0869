"""Where the milliseconds of one layout go: TTFT and TPOT of one request alone, term by term.

The terms are those that the ranking used, so they add up to its idle figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.cost.front_path import Path
from tuner.cost.front_stream import first_ms
from tuner.cost.latency import StepCosts
from tuner.cost.steady import Shapes
from tuner.cost.step_batch import StepShape, Terms, total


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Milliseconds by term, largest first; each mapping sums to the figure that it explains."""

    ttft_ms: Mapping[str, float]
    tpot_ms: Mapping[str, float]


class RequestSteps:
    """The steps of one request alone in a layout. Layouts with the same step get one object, whose price is cached."""

    def __init__(self, request: TuneRequest) -> None:
        self._request = request
        self._by_chunks: dict[tuple[int, int], Shapes] = {}
        self._decode: dict[int, StepShape] = {}

    def of(self, layout: ParallelLayout, slices: int) -> Shapes:
        """The steps; a prompt comes in at least ``slices`` chunks."""
        key = (layout.max_num_batched_tokens, slices)
        if key not in self._by_chunks:
            self._by_chunks[key] = Shapes.of(self._request, np.array([float(layout.max_num_batched_tokens)]), 1, slices)
        shapes = self._by_chunks[key]
        decode = self._decode.setdefault(layout.pp, shapes.for_stages(layout.pp).decode)
        return replace(shapes, decode=decode)


def breakdown(
    costs: StepCosts, layout: ParallelLayout, request: TuneRequest, steps: RequestSteps | None = None
) -> Breakdown:
    """Explain the idle TTFT and TPOT of a layout; ``steps`` are those of the request, shared between layouts."""
    shapes = (steps or RequestSteps(request)).of(layout, costs.techniques.slices(layout.pp))
    prefill = costs.stages(layout, shapes.prefill)
    slowest = max(prefill, key=lambda terms: float(total(terms)[0]))
    ttft = _summed(prefill)
    for name, value in slowest.items():  # every further chunk waits for the slowest stage
        ttft[name] += (float(shapes.chunks[0]) - 1) * _first(value)
    ttft["request handling"] = costs.cluster.profile.engine.handling_ms(shapes.prompt_tokens)
    tpot = _summed(costs.stages(layout, shapes.decode))
    ttft |= _path(costs, layout, sum(ttft.values()), sum(tpot.values()), float(shapes.output_tokens))
    return Breakdown(_largest_first(ttft), _largest_first(tpot))


def _path(
    costs: StepCosts, layout: ParallelLayout, engine_ms: float, tpot_ms: float, output_tokens: float
) -> dict[str, float]:
    """What the path to the engine adds when idle: by hop, as they work on a request and its first message, each time
    longer where cores are short, and until the tick that finds the first token."""
    path = Path.of(layout, costs.cluster)
    load = path.load(0.0, output_tokens, tpot_ms)
    works = {hop.name: hop.request_ms + hop.message_ms for hop in path.fit.hops}
    whole = sum(works.values()) or 1.0
    terms = {
        f"path: {name}": work * (path.fit.idle_ms / whole + float(load.hops[name].longer) - 1)
        for name, work in works.items()
    }
    return {**terms, "path: interval": float(first_ms(engine_ms, 0.0, path.front.interval_ms)) - engine_ms}


def _summed(stages: Iterable[Terms]) -> dict[str, float]:
    found: dict[str, float] = {}
    for terms in stages:
        for name, value in terms.items():
            found[name] = found.get(name, 0.0) + _first(value)
    return found


def _first(value: object) -> float:
    return float(np.ravel(np.asarray(value))[0])


def _largest_first(terms: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(((n, v) for n, v in terms.items() if v > 0), key=lambda pair: -pair[1]))
