"""How long the next deployment will take to start, from the earlier starts of its study, phase by phase.

- download and weights: with the bytes of a device's weights (ranks load side by side);
- capture: with the number of graphs, which follows from ``max_num_seqs``;
- compile: as long as for any other layout where its graph is new, and a fifth of that where it is the same as before
  (on an H200 22 s anew, about 4 s from vLLM's cache; where a start of the same graph from the cache is known, as that
  one). The graph is the same where nothing differs but replicas, ``max_num_seqs`` and the path in front of the engine;
- session: over, once there was a first trial;
- all others: as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from statistics import fmean

from tuner.ask.deployment import Deployment
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.cost.stored import weight_bytes
from tuner.trial.results import TrialResult
from tuner.trial.start_up import StartPhase, StartUp

CACHED_SHARE = 0.2  # of the time to compile a graph anew
_MOST_GRAPH_TOKENS = 512
_BY_BYTES = (StartPhase.DOWNLOAD, StartPhase.WEIGHTS)
_Known = tuple[ParallelLayout, StartUp]


class StartForecast:
    """What the trials of a study that came up say of the next start."""

    def __init__(self, request: TuneRequest, trials: Iterable[TrialResult]) -> None:
        self._request = request
        came_up = [trial for trial in trials if trial.ready_after_s is not None and trial.engine_of is None]
        self._ready_s = [trial.ready_after_s for trial in came_up if trial.ready_after_s is not None]
        self._known: list[_Known] = [
            (trial.deployment, trial.start_up)
            for trial in came_up
            if trial.start_up is not None and isinstance(trial.deployment, ParallelLayout)
        ]

    def expected_s(self, deployment: Deployment) -> float | None:
        """Seconds from the order to the first answers; None before anything came up."""
        return self._forecast_s(deployment, fmean)

    def least_s(self, deployment: Deployment) -> float:
        """Seconds that it will hardly start faster than: each phase as in the fastest start so far."""
        return self._forecast_s(deployment, min) or 0.0

    def _forecast_s(self, deployment: Deployment, of: Callable[[Sequence[float]], float]) -> float | None:
        if self._known and isinstance(deployment, ParallelLayout):
            return sum(self._phase_s(phase, deployment, of) for phase in StartPhase)
        return of(self._ready_s) if self._ready_s else None

    def _phase_s(self, phase: StartPhase, layout: ParallelLayout, of: Callable[[Sequence[float]], float]) -> float:
        if phase is StartPhase.SESSION:
            return 0.0
        if phase is StartPhase.COMPILE:
            return self._compile_s(layout, of)
        seen = [(one, up.phases_s.get(phase, 0.0)) for one, up in self._known]
        if not any(seconds for _, seconds in seen):
            return 0.0
        if phase in _BY_BYTES:
            return of([seconds * self._bytes(layout) / self._bytes(one) for one, seconds in seen])
        if phase is StartPhase.CAPTURE:
            return of([seconds * _graphs(layout) / _graphs(one) for one, seconds in seen])
        return of([seconds for _, seconds in seen])

    def _compile_s(self, layout: ParallelLayout, of: Callable[[Sequence[float]], float]) -> float:
        took = [(_graph(one) == _graph(layout), up.compiled_anew is False, up) for one, up in self._known]
        cached = [up.phases_s.get(StartPhase.COMPILE, 0.0) for same, was, up in took if same and was]
        if cached:
            return of(cached)
        anew = [up.phases_s.get(StartPhase.COMPILE, 0.0) for _, was, up in took if not was]
        if not anew:  # of this study all came from the cache, of which this layout is a part or not
            return of([up.phases_s.get(StartPhase.COMPILE, 0.0) for _, _, up in took])
        return of(anew) * (CACHED_SHARE if any(same for same, _, _ in took) else 1.0)

    def _bytes(self, layout: ParallelLayout) -> float:
        return max(weight_bytes(self._model, layout, stage) for stage in range(layout.pp))

    @cached_property
    def _model(self) -> ModelShape:
        return requested_model(self._request)


def _graphs(layout: ParallelLayout) -> int:
    """Sizes for which vLLM captures graphs: 1, 2, 4, then each eighth to 256, then each sixteenth (vLLM 0.29,
    ``VllmConfig._set_cudagraph_sizes``)."""
    most = min(2 * layout.max_num_seqs, _MOST_GRAPH_TOKENS)
    return sum(size <= most for size in (1, 2, 4, *range(8, 256, 8), *range(256, _MOST_GRAPH_TOKENS + 1, 16)))


def _graph(layout: ParallelLayout) -> ParallelLayout:
    """A layout whose engines run the same compiled code."""
    engine = layout.engine.without(("max_num_seqs",))
    return engine if engine.shares_experts else replace(engine, dp=1)
