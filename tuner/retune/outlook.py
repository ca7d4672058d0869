"""What a change of layout could bring now, by what is known and by the model: seconds, and nothing is launched.

The model is that of the plan, with the prices that the study learnt; of each layout it gives the probability that it
meets the SLO. What somebody saw, in a trial or while it served, is believed before it. The SLO comes first, then what
the objective counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial

from tuner.ask.cluster import Cluster, Fleet, usd_per_hour
from tuner.ask.deployment import Deployment, TwoPools, pools_of
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.packing import pools_unplaceable, unplaceable
from tuner.ask.request import Objective, TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.errors import BadInput
from tuner.plan.prune import Candidate
from tuner.retune.asked_now import ALIKE, AskedNow
from tuner.retune.contenders import AT_MOST, chances, cluster_of, contenders, priced, replicated
from tuner.retune.judgement import LayoutOutlook, Outlook
from tuner.retune.known import Known, replica_of

LIKELY = 0.5  # from this probability on a layout is expected to meet the SLO
SURE = 0.8  # and from this one it is said to
HOPELESS = 0.2  # and up to this one it is said not to
DOUBT = 0.2  # share by which the model may be wrong of what one layout carries beside another
WARM_MINUTES = 10.0  # of a new deployment beside the old one, after it is up: warm-up, canary and drain

Refuses = Callable[[Deployment], str | None]


def _runs_all(_: Deployment) -> str | None:
    return None


def outlook(
    now: AskedNow,
    present: Deployment,
    known: Known,
    *,
    vetoed: Collection[Deployment] = (),
    left: Collection[Deployment] = (),
    refuses: Refuses = _runs_all,
    simulate: bool = True,
    in_place: bool = True,
    moving_minutes: float = WARM_MINUTES,
) -> Outlook:
    """Of the present layout and the best other one that is not ``vetoed`` and that the launcher does not refuse. Unless
    the present one may end first (``in_place``), one that has room beside it is better than one that has none. What was
    ``left`` since it missed the SLO is not the best while the present one meets it.

    Where the present one does not fit the cluster, the best is what can be had at once: what a trial showed before
    what only the model says, and without the simulator, which takes a second or two otherwise. Raises BadInput where
    the present one is on a node group that the request which is ``known`` does not name: it says nothing of it.
    """
    if now.request is None:
        return Outlook(None, None, assumed=now.assumed)
    groups, there = {group.gpu for group in known.request.groups}, {one.gpu for one in pools_of(present).values()}
    if groups and not there <= (groups if len(groups) > 1 else groups | {None}):
        raise BadInput("present", str(present), "a layout on a node group that the last round was asked of")
    named = len(groups) > 1 or None not in there
    cluster = cluster_of(now.request, named)
    question = _Question(
        now, now.request, known, requested_model(now.request), cluster, named, frozenset(_engines(present))
    )
    fits = question.holds(present)
    spare = max(question.cluster.devices - (present.devices if fits else 0), 0)
    room = None if in_place or not fits else spare
    for widely in (False, True):
        others = question.others(present, widely)
        allowed = [c for c in others if c.deployment not in vetoed and refuses(c.deployment) is None]
        if widely and simulate and fits:
            allowed = question.likeliest(allowed, room)
        found = question.weighed(allowed, present if fits else None, simulate and fits)
        here = found.pop(present, None) if fits else None
        urgent = here is None or here.meets is False or doubtful(here)
        back = () if urgent else left
        open_ = [one for one in found.values() if one.deployment not in back]
        best = min(open_, key=partial(question.order, urgent=urgent, room=room), default=None)
        if best is not None and likelihood(best) >= (SURE if urgent else LIKELY):
            break
    untried, hours = question.untried(here, found.values(), spare), known.tuning_gpu_hours(1)
    told = Outlook(here, best, spare_gpus=spare, assumed=now.assumed, untried=untried, untried_hours=hours)
    return told if best is None else question.compared(told, best, moving_minutes)


@dataclass(frozen=True, slots=True)
class _Question:
    now: AskedNow
    request: TuneRequest
    known: Known
    model: ModelShape
    cluster: Cluster | Fleet
    named: bool  # layouts name their node group
    served: frozenset[ParallelLayout]  # an engine of each layout that serves

    def holds(self, deployment: Deployment) -> bool:
        """Is there room for it on the cluster of now?"""
        try:
            groups = {name: self.cluster.group(layout) for name, layout in pools_of(deployment).items()}
        except BadInput:  # its kind of node is gone
            return False
        if isinstance(deployment, TwoPools) and groups["prefill"] == groups["decode"]:
            return pools_unplaceable(deployment.prefill, deployment.decode, groups["prefill"]) is None
        return all(unplaceable(layout, groups[name]) is None for name, layout in pools_of(deployment).items())

    def others(self, present: Deployment, widely: bool) -> list[Candidate]:
        """Layouts that are legal now and may be the best, those that were measured among them; ``widely``: more of the
        engines too that serve, or came up in a trial. What slows them is known; of others it is not, and the more of
        them there are, the dearer is the mistake."""
        measured = {t.deployment for t in self.known.trials if t.steps} | {one.deployment for one in self.known.lived}
        found = contenders(self.request, self.named)
        if widely:
            for engine in sorted({*self.known.measured_engines, *_engines(present)}):
                have = {candidate.deployment for candidate in found}
                found += [c for c in replicated(self.request, engine, self.named) if c.deployment not in have]
        have = {candidate.deployment for candidate in found}
        missing = sorted(one for one in measured - have if isinstance(one, ParallelLayout))
        found += [c for one in missing if (c := priced(self.request, self.model, self.cluster, one)) is not None]
        return [candidate for candidate in found if candidate.deployment != present]

    def likeliest(self, others: list[Candidate], room: int | None) -> list[Candidate]:
        """As many as are simulated, the best of them in the closed form."""
        found = self.weighed(others, None, simulate=False)
        order = partial(self.order, urgent=True, room=room)
        return sorted(others, key=lambda one: order(found[one.deployment]))[:AT_MOST]

    def weighed(
        self, others: list[Candidate], present: Deployment | None, simulate: bool
    ) -> dict[Deployment, LayoutOutlook]:
        """What is expected of each, and of the present layout; that the model knows nothing of two pools is said by
        ``meets`` None."""
        own, slower = self._priced(present), self._priced(self.known.slower_on)
        candidates = others if own is None else [*others, own]
        shown = self.known.shown(self.now)
        model, cluster = self.model, self.cluster
        likely = chances(self.request, candidates, model, cluster, self.known, shown, simulate, slower)
        each = zip(candidates, likely, strict=True)
        found = {c.deployment: self._expected(c, chance, most, shown) for c, (chance, most) in each}
        if present is not None and own is None:
            unpriced = None if isinstance(present, TwoPools) else False  # no rule lets it be: sequences do not fit
            meets = shown.get(present, unpriced)
            usd = usd_per_hour(self.request, present)
            found[present] = LayoutOutlook(present, present.devices, meets, usd, measured=present in shown)
        return found

    def _priced(self, deployment: Deployment | None) -> Candidate | None:
        if not isinstance(deployment, ParallelLayout):
            return None
        return priced(self.request, self.model, self.cluster, deployment)

    def _expected(
        self, candidate: Candidate, chance: float, carries: float, shown: dict[Deployment, bool]
    ) -> LayoutOutlook:
        deployment, prediction = candidate.deployment, candidate.prediction
        step = prediction.steps[_asked_step(self.request)]
        ms = {key: value for key, value in zip(self.request.shown_metrics, step, strict=True) if value is not None}
        seen = shown.get(deployment)
        sure = True if chance >= SURE else False if chance <= HOPELESS else None
        return LayoutOutlook(
            deployment,
            deployment.devices,
            sure if seen is None else seen,
            candidate.usd_per_hour,
            ms,
            chance if seen is None else None,
            seen is not None,
            carries,
        )

    def order(self, one: LayoutOutlook, urgent: bool, room: int | None) -> tuple[float, ...]:
        """The best is the smallest: expected to meet the SLO (where it is missed, ``urgent``, surely before likely),
        what came up before where that counts, the objective, the surest; where none is expected to, the likeliest, and
        then the one that carries the most, and of such as carry about as much an engine that has served: it is known
        to, and an engine alike by the model may not. ``room`` is for so many GPUs."""
        crowded, likely = float(room is not None and one.gpus > room), likelihood(one)
        if likely < LIKELY:
            chance = round(likely, 1) if likely > HOPELESS else 0.0
            carries = one.goodput_req_per_s or 0.0
            about = round(math.log(carries) / ALIKE) if carries > 0 else -math.inf
            unknown = float(self.served.isdisjoint(_engines(one.deployment)))
            return (2.0, crowded, -chance, -about, unknown, -carries, one.gpus)
        unsure = float(urgent and likely < SURE)
        return (0.0, crowded, unsure, float(urgent and not self._came_up(one)), self.costs(one), -likely, one.gpus)

    def untried(
        self, present: LayoutOutlook | None, others: Iterable[LayoutOutlook], spare: int
    ) -> LayoutOutlook | None:
        """The one to begin with, where the model is wrong of something: of those that nobody measured the likeliest,
        and the one that carries most, first of those for which there is room, and of other engines than what was seen
        to miss the SLO: of those the model is likely wrong alike. None that carries less by more than the doubt."""
        if present is None:
            return None
        least = (1 - DOUBT) * (present.goodput_req_per_s or 0.0)
        served = {one.deployment for one in self.known.lived}
        new = (one for one in others if not one.measured and one.deployment not in served)
        fresh = [one for one in new if (one.goodput_req_per_s or 0.0) >= least]
        missed = [one.deployment for one in self.known.lived if not one.met] + [present.deployment]
        shapes = {one.shape for one in missed if isinstance(one, ParallelLayout)}

        def order(one: LayoutOutlook) -> tuple[float, ...]:
            alike = isinstance(one.deployment, ParallelLayout) and _one(one.deployment.shape) in map(_one, shapes)
            return (one.gpus > spare, alike, -round(likelihood(one), 1), -(one.goodput_req_per_s or 0.0), one.gpus)

        return min(fresh, key=order, default=None)

    def _came_up(self, one: LayoutOutlook) -> bool:
        """Did an engine like its own come up in a trial, or serve?"""
        layout = one.deployment
        engines = self.known.measured_engines
        return one.measured or (isinstance(layout, ParallelLayout) and replica_of(layout) in engines)

    def costs(self, one: LayoutOutlook) -> float:
        """What the first objective counts, less is better."""
        objective = self.request.objective
        if objective is Objective.MAX_GOODPUT:
            return -(one.goodput_req_per_s or 0.0)
        if objective is Objective.MIN_LATENCY:
            return sum(one.ms.values()) if one.ms else math.inf
        if objective is Objective.MIN_COST and one.usd_per_hour is not None:
            return one.usd_per_hour
        return float(one.gpus)

    def compared(self, told: Outlook, best: LayoutOutlook, moving_minutes: float) -> Outlook:
        """What the best gains against the present layout, and what it takes to get there."""
        present = told.present
        moving = best.gpus * (self.known.start_s / 3600 + moving_minutes / 60)
        tuning = 0.0 if best.measured else self.known.tuning_gpu_hours(best.gpus)
        told = replace(told, best=best, tuning_gpu_hours=tuning, moving_gpu_hours=moving)
        if present is None:
            return replace(told, regains_slo=likelihood(best) >= LIKELY)
        regains = present.meets is False and likelihood(best) >= LIKELY
        gain = self._gain(present, best)
        whole = present.gpus if present.usd_per_hour is None else present.usd_per_hour
        return replace(told, regains_slo=regains, gain=gain, gain_per_hour=gain * whole)

    def _gain(self, present: LayoutOutlook, best: LayoutOutlook) -> float:
        """The share of what the present layout takes that the best saves: of its GPUs or dollars; for goodput of the
        GPUs per request that it carries, for latency of the milliseconds. Negative where it takes more."""
        now, then = self.costs(present), self.costs(best)
        if self.request.objective is Objective.MAX_GOODPUT:
            return 1 - now / then if then else 0.0
        return 1 - then / now if 0 < now < math.inf and then < math.inf else 0.0


def _engines(deployment: Deployment) -> tuple[ParallelLayout, ...]:
    return tuple(replica_of(layout) for layout in pools_of(deployment).values())


def _one(shape: ParallelLayout) -> ParallelLayout:
    return replace(shape, dp=1)


def likelihood(one: LayoutOutlook) -> float:
    """The probability that it meets the SLO; what was seen is certain."""
    if one.chance is not None:
        return one.chance
    return 1.0 if one.meets else 0.0


def doubtful(one: LayoutOutlook | None) -> bool:
    """Does the model expect it to miss the SLO, though nobody saw that it does?"""
    return one is not None and one.chance is not None and one.chance < LIKELY


def _asked_step(request: TuneRequest) -> int:
    asked = request.workload.arrival.requests_per_s
    return min(range(len(request.rates_req_per_s)), key=lambda i: abs(request.rates_req_per_s[i] - asked))
