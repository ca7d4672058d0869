"""What is to be done about what serves: puts together what the judgement rests on. It launches nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tuner.app.watch.outage import restored
from tuner.app.watch.whole import engine_of, named, trials_of, whole_request
from tuner.ask.deployment import Deployment, parse_deployment
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.errors import BadInput
from tuner.retune.asked_now import AskedNow, asked_now
from tuner.retune.demand import Demand, LoadRecord
from tuner.retune.detect.residual import Expected
from tuner.retune.evidence import informed, lived_since, since_alike
from tuner.retune.expected import ExpectedByModel
from tuner.retune.judge import judge
from tuner.retune.judgement import Judgement, Outlook
from tuner.retune.known import Known, Lived
from tuner.retune.live import LiveDeployment
from tuner.retune.outlook import Refuses, outlook
from tuner.retune.policy import RetunePolicy
from tuner.retune.seen import Fingerprint, Look
from tuner.retune.situation import Situation
from tuner.search.warm_start import Past, carried
from tuner.study.store import Store
from tuner.trial.results import TrialResult


@dataclass(frozen=True, slots=True)
class Case:
    """One judgement's grounds: what serves, its load and last looks, what holds, and what was learnt under layouts that
    served before. ``rounds`` are the study's that were decided, the oldest first: the last is what is asked again, on
    the study's own cluster. ``well_s``: since when nothing ill was noticed of what serves (s since 1970; None:
    nobody looked yet). ``before`` is the load that was seen then, for what nobody sees of it yet."""

    live: LiveDeployment
    load: LoadRecord
    recent: tuple[Look, ...]
    situation: Situation
    rounds: tuple[str, ...]
    lived: tuple[Lived, ...] = ()
    slower: Mapping[Metric, float] = field(default_factory=dict)
    slower_on: Deployment | None = None
    well_s: float | None = None
    before: Demand = field(default_factory=Demand)


@dataclass(frozen=True, slots=True)
class Judged:
    """A judgement; the request as it would be asked now, and what is known: None where nobody had to ask."""

    judgement: Judgement
    now: AskedNow | None = None
    known: Known | None = None


def judged(store: Store, case: Case, policy: RetunePolicy, refuses: Refuses) -> Judged:
    """``refuses``: why the place cannot run a layout, or None."""
    situation = case.situation
    if situation.reason is None:
        return Judged(judge(situation, policy, None))
    request = whole_request(store, case.rounds)
    case = _named_case(store, case, request)
    demand = case.load.demand(situation.at_s, situation.notices).else_as(case.before)
    seen = next((look.fingerprint for look in reversed(case.recent) if look.fingerprint is not None), None)
    trials, factors = trials_of(store, case.rounds, request), _factors(store, case.rounds, situation.at_s)
    now = asked_now(request, demand, seen, measured_on(case.live, trials))
    lived = () if {"engine", "link"} & set(now.changed) else case.lived  # they lived with others
    before = Known(request, trials, factors, case.slower, (*lived, *_served(case)), case.slower_on)
    known = informed(before, situation.notices, case.live.deployment, now, case.load.missing, situation.at_s)
    found = _outlook(now, case, known, refuses, policy)
    if found is not None and found.present is None and (seen is None or seen.nodes is None):
        found = None  # nobody sees the nodes: that what serves has no room on those that were asked for says nothing
    if situation.outage is not None and found is not None:
        found = restored(found, situation.vetoed)
    return Judged(judge(situation, policy, found), now, known)


def expected_of(store: Store, live: LiveDeployment, rounds: Sequence[str], at_s: float) -> Expected | None:
    """What the model, with the prices that the rounds taught, expects of what serves; None of two pools."""
    if not isinstance(live.deployment, ParallelLayout):
        return None
    request = store.study(live.study).request
    known = Known(request, store.snapshot(live.study).finished, _factors(store, rounds, at_s))
    return ExpectedByModel(request, live.deployment, known)


def measured_on(live: LiveDeployment, trials: Sequence[TrialResult]) -> Fingerprint | None:
    """What the last decision's trials were measured on, which is not what was there when a layout was moved to since:
    the engine's version is that of the newest launch, all else as it was when what serves was decided."""
    versions = next((engine for one in reversed(trials) if one.steps and (engine := engine_of(one)) is not None), None)
    if versions is None:
        return live.fingerprint
    return replace(live.fingerprint or Fingerprint(), versions=versions)


def _named_case(store: Store, case: Case, request: TuneRequest) -> Case:
    """With what serves as a request of all node groups calls it."""
    own = store.study(case.live.study).request
    return replace(case, live=replace(case.live, deployment=named(case.live.deployment, own, request)))


def _served(case: Case) -> tuple[Lived, ...]:
    """That what serves has met its SLO all the while, or misses it in busy hours, where that was seen."""
    if case.well_s is None:
        return ()
    alike_s = since_alike(case.well_s, case.situation.notices)
    shown = lived_since(case.load, case.live.deployment, alike_s, case.situation.at_s)
    return () if shown is None else (shown,)


def _outlook(now: AskedNow, case: Case, known: Known, refuses: Refuses, policy: RetunePolicy) -> Outlook | None:
    vetoed, in_place = case.situation.vetoed, policy.in_place or case.situation.outage is not None
    left = known.left(now, case.situation.at_s)
    try:
        return outlook(now, case.live.deployment, known, vetoed=vetoed, left=left, refuses=refuses, in_place=in_place)
    except BadInput:  # what is asked now cannot be priced: nobody can say what a change would bring
        return None


def layouts(words: Iterable[str]) -> frozenset[Deployment]:
    """Layouts that were kept as they print; those of a Parlay that had other axes are left out."""
    found = set()
    for text in words:
        try:
            found.add(parse_deployment(text))
        except BadInput:
            continue
    return frozenset(found)


def _factors(store: Store, rounds: Sequence[str], at_s: float) -> dict[str, tuple[float, float]]:
    """What the rounds' trials taught of prices."""
    past = []
    for name in rounds:
        record = store.study(name)
        past.append(Past(record.created_at, record.request, record.ranked or (), store.snapshot(name).finished))
    return carried(past, requested_model(past[-1].request), at_s) if past else {}
