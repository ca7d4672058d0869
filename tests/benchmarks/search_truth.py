"""What every layout of a tuning problem does in truth: measured without noise when it is first asked for, and kept.

Each window is simulated once, whoever asks, in a cache outside the repository.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tests.fakes import steps_of
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import TuneRequest
from tuner.errors import FailureReason, LaunchFailed
from tuner.rehearse.cluster import SimulatedCluster
from tuner.rehearse.conditions import Conditions
from tuner.rehearse.launcher import SimulatedLauncher
from tuner.rehearse.meter import SimulatedMeter
from tuner.trial.results import StepResult
from tuner.trial.seams import LaunchOrder, Watch

CACHE = Path(tempfile.gettempdir()) / "parlay-search-truth"
_FORM = 4  # of what is pickled there


class Truth:
    """Of the ``legal`` layouts of one request in one world."""

    def __init__(
        self,
        request: TuneRequest,
        model: ModelShape,
        cluster: Cluster,
        legal: Iterable[ParallelLayout],
        conditions: Conditions,
    ) -> None:
        self.legal = tuple(sorted(set(legal)))
        self._request = request
        self._world = SimulatedCluster(cluster, replace(conditions, noise=0.0))
        self._launcher, self._meter = SimulatedLauncher(self._world), SimulatedMeter(self._world)
        self._steps = {step.rate_req_per_s: step for step in steps_of(request)}
        words = f"{_FORM} {model.name} {request.model_dump_json(exclude={'budget'})} {conditions} {len(self.legal)}"
        self._path = CACHE / f"{hashlib.sha256(words.encode()).hexdigest()[:24]}.pickle"
        self._known: dict[tuple[ParallelLayout, float], StepResult | FailureReason] = {}
        if self._path.exists():
            self._known = pickle.loads(self._path.read_bytes())  # our own file
        self._kept = len(self._known)

    def at(self, layout: ParallelLayout, rate_req_per_s: float) -> StepResult | FailureReason:
        """What one layout does at one of the request's rates, or how it fails."""
        key = (layout, rate_req_per_s)
        if key not in self._known:
            self._known[key] = self._measured(layout, rate_req_per_s)
        return self._known[key]

    def keep(self) -> None:
        """Keep what was measured since for the next run."""
        if len(self._known) > self._kept:
            CACHE.mkdir(exist_ok=True)
            self._path.write_bytes(pickle.dumps(self._known))
            self._kept = len(self._known)

    def _measured(self, layout: ParallelLayout, rate_req_per_s: float) -> StepResult | FailureReason:
        order = LaunchOrder("truth", 0, str(layout), layout, self._request, CACHE)
        deployment = None
        try:
            deployment = self._launcher.launch(order, Watch())
            return self._meter.measure(deployment, self._steps[rate_req_per_s], self._request, Watch())
        except LaunchFailed as failure:
            return failure.reason
        finally:
            if deployment is not None:
                deployment.teardown()
