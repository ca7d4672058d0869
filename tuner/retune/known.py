"""What is known of layouts when a study's question is asked again: its trials, the prices that it learnt, and what each
layout showed while it served."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean

from tuner.ask.deployment import Deployment
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TuneRequest
from tuner.decide.comparison import by_layout, held_req_per_s
from tuner.retune.asked_now import ALIKE, AskedNow
from tuner.retune.demand import PERIOD_S
from tuner.search.rates import usual_load_s
from tuner.trial.results import TrialResult

_START_S = 300.0  # of a deployment, where no trial tells
_LAUNCHES = 4  # of a round of a study: its median with warm starts (tests/benchmarks/results/search.md)
_ENOUGH = 1 - 1e-9  # of a rate, but for rounding
AS_HEAVY = 0.95  # a load is as heavy as another from this share of its rate and lengths on
_NEARLY = 0.85  # of the rate: what is asked has a margin over the busiest hours in which a layout served well


@dataclass(frozen=True, slots=True)
class Lived:
    """What a deployment showed while it served such a load: ``met`` the SLO, or missed it; ``at_s`` when that was seen
    last (s since 1970; None: nobody knows)."""

    deployment: Deployment
    req_per_s: float
    prompt_tokens: float
    output_tokens: float
    met: bool
    at_s: float | None = field(default=None, compare=False)

    def speaks_of(self, request: TuneRequest) -> bool:
        """Does it hold for the load of a request: one that was met for any lighter, one that was missed for any heavier
        load?"""
        asked = request.workload
        rates = self.req_per_s, asked.arrival.requests_per_s
        prompts = self.prompt_tokens, float(asked.prompt_tokens.mean)
        answers = self.output_tokens, float(asked.output_tokens.mean)
        if self.met:
            return rates[0] >= _NEARLY * rates[1] and all(was >= AS_HEAVY * now for was, now in (prompts, answers))
        return all(now >= AS_HEAVY * was for was, now in (rates, prompts, answers))

    @classmethod
    def now(cls, deployment: Deployment, request: TuneRequest, met: bool, at_s: float | None = None) -> Lived:
        """Of a deployment that serves the load of a request (of now)."""
        load = request.workload
        lengths = float(load.prompt_tokens.mean), float(load.output_tokens.mean)
        return cls(deployment, load.arrival.requests_per_s, *lengths, met, at_s)


@dataclass(frozen=True, slots=True)
class Known:
    """``request`` is the study's, ``factors`` are as ``tuner.search.warm_start.carried`` gives them. ``slower``: by how
    much latencies are longer than was expected, at the same load, where that was noticed, and ``slower_on`` of which
    layout; what it means for others says ``tuner.retune.causes``, and no trial of before says anything then. ``lived``
    is what was seen since the cluster is as it is."""

    request: TuneRequest
    trials: tuple[TrialResult, ...] = ()
    factors: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    slower: Mapping[Metric, float] = field(default_factory=dict)
    lived: tuple[Lived, ...] = ()
    slower_on: Deployment | None = None

    def shown(self, now: AskedNow) -> dict[Deployment, bool]:
        """Of which layouts somebody saw whether they meet the SLO under the load of now; in service, else by trial."""
        if now.request is None:
            return {}
        found = self._measured(now, now.request.workload.arrival.requests_per_s)
        for one in self.lived:
            if one.speaks_of(now.request):
                found[one.deployment] = one.met
        return found

    def _measured(self, now: AskedNow, rate_req_per_s: float) -> dict[Deployment, bool]:
        if now.request is None or "engine" in now.changed or self.slower or not comparable(self.request, now.request):
            return {}
        found: dict[Deployment, bool] = {}
        for deployment, trials in by_layout(self.trials).items():
            held = held_req_per_s(self.request, trials)
            if held is not None and held >= rate_req_per_s * _ENOUGH:
                found[deployment] = True
            elif any(
                s.misses(self.request) and s.step.rate_req_per_s <= rate_req_per_s for t in trials for s in t.steps
            ):
                found[deployment] = False
        return found

    def left(self, now: AskedNow, at_s: float) -> frozenset[Deployment]:
        """Layouts that missed the SLO within the period by which loads repeat, on the nodes that there are: until it is
        over, a lighter load of now is no reason to go back to one to save."""
        if "nodes" in now.changed:
            return frozenset()
        missed = (one for one in self.lived if not one.met and one.at_s is not None)
        return frozenset(one.deployment for one in missed if at_s - (one.at_s or 0.0) < PERIOD_S)

    @property
    def measured_engines(self) -> frozenset[ParallelLayout]:
        """One replica of each layout that came up in a trial: as many of them as there is room for come up, too."""
        launched = (trial.deployment for trial in self.trials if trial.steps)
        return frozenset(replica_of(one) for one in launched if isinstance(one, ParallelLayout))

    @property
    def start_s(self) -> float:
        """How long a deployment takes to come up, on average over the trials."""
        known = [trial.ready_after_s for trial in self.trials if trial.ready_after_s and trial.engine_of is None]
        return fmean(known) if known else _START_S

    def tuning_gpu_hours(self, gpus: int) -> float:
        """What a round of the study takes with layouts of so many GPUs, by its own trials so far."""
        known = [trial.seconds for trial in self.trials if trial.seconds]
        each_s = usual_load_s(self.request) + self.start_s
        return gpus * _LAUNCHES * (fmean(known) if known else each_s) / 3600


def comparable(one: TuneRequest, two: TuneRequest) -> bool:
    """May trials for one request be held against what the other asks? At another rate they may, and on other numbers of
    nodes, since each rate that a layout held is known; requests of other lengths or links are another question."""
    loads = one.workload, two.workload
    figures = [(load.prompt_tokens.mean, load.output_tokens.mean) for load in loads]
    alike = all(abs(math.log(was / now)) <= ALIKE for was, now in zip(*figures, strict=True))
    shared = [load.shared_prefix_tokens / load.prompt_tokens.mean for load in loads]
    links = [[(group.gpu, group.inter_node_gb_per_s) for group in asked.groups] for asked in (one, two)]
    named = all(link in links[0] for link in links[1])
    return alike and named and abs(shared[0] - shared[1]) <= ALIKE


def replica_of(layout: ParallelLayout) -> ParallelLayout:
    """One engine of a layout; the layout itself where its replicas share experts."""
    return layout if layout.shares_experts else replace(layout, dp=1)
