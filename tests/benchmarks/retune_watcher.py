"""Parlay in an episode: detectors, outlook and judgement as they are, with a simulated rollout and simulated trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tests.benchmarks.retune_looks import Eyes
from tests.benchmarks.retune_service import Service
from tests.benchmarks.retune_stories import BEGIN_S, DAY_S, DAYS, STEP_S, Story
from tests.benchmarks.retune_study import TRIAL_S, first_study, round_of
from tests.benchmarks.retune_world import State
from tuner.ask.deployment import Deployment, one_group
from tuner.ask.layout import ParallelLayout
from tuner.retune.asked_now import AskedNow, asked_now
from tuner.retune.demand import LoadRecord
from tuner.retune.detect.standard import standard_detectors
from tuner.retune.evidence import ILL, informed, lived_since, since_alike
from tuner.retune.expected import ExpectedByModel
from tuner.retune.judge import carries_more, judge
from tuner.retune.judgement import Action, HeldBy, Judgement, Outlook
from tuner.retune.known import Known
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.outlook import doubtful, outlook
from tuner.retune.policy import Consent, RetunePolicy
from tuner.retune.situation import Situation, concerns

POLICY = RetunePolicy(consent=Consent.AUTO, in_place=True, trials="in_place")
LOOK_S = 15.0  # between looks, as ``parlay watch`` has it, about the time of a change
ALERT_S = 60.0  # elsewhere while something is the matter; else STEP_S, to save time
TOLD_S = 60.0  # after which Ray or Kubernetes tells of nodes that went or came
AGAIN_S = 3600.0  # after which the same notices are judged again
_WAITS = {HeldBy.NOT_FOR_LONG, HeldBy.COOL_DOWN}
_CALM_S = 1800.0  # after a new notice

_models: dict[tuple[object, ...], ExpectedByModel] = {}
_outlooks: dict[tuple[object, ...], Outlook] = {}  # of all episodes of a world


@dataclass
class Watched:
    """What came of an episode: what was done, and when (s since its begin), with the layout before it; notices by when
    they were seen first; GPU-hours of trials."""

    service: Service
    actions: list[tuple[float, Judgement, ParallelLayout]] = field(default_factory=list)
    proposed: list[float] = field(default_factory=list)  # when a change was done, or only held back
    seen: list[tuple[float, Notice]] = field(default_factory=list)
    tuning_gpu_hours: float = 0.0
    looks: int = 0


class Watcher:
    """Watches one episode to its end."""

    def __init__(self, story: Story, policy: RetunePolicy = POLICY) -> None:
        self._story, self._policy = story, policy
        of = story.world
        self._service = Service(story, of.best(State()))
        self._eyes, self._record = Eyes(story, self._service), LoadRecord()
        self._measured_on = self._eyes.fingerprint(State())
        request = of.site.request
        self._detectors = standard_detectors(
            request.slo,
            self._measured_on,
            lambda look: self._expected(look),
            planned_req_per_s=request.workload.arrival.requests_per_s,
            planned_tokens={
                "prompt_tokens": float(request.workload.prompt_tokens.mean),
                "output_tokens": float(request.workload.output_tokens.mean),
            },
        )
        self._known = self._next_known = first_study(of)
        self._expected = self._model()
        self._well_s = 0.0  # since when nothing was the matter that could be seen
        self._found = Watched(self._service)
        self._unmeasured, self._moved_s = False, -math.inf
        self._measured_s: float | None = None
        self._study: tuple[float, ParallelLayout | None] | None = None
        self._today = (0, 0.0)
        self._keys: frozenset[tuple[NoticeKind, str]] = frozenset()
        self._new_s = self._judged_s = -math.inf
        self._waits = False

    def run(self) -> Watched:
        """All of it."""
        told = [c.at_s + TOLD_S for c in self._story.changes if self._story.kind == "nodes"]  # by Ray or Kubernetes
        at_s, alert, end_s = 0.0, False, DAYS * DAY_S
        while at_s < end_s:
            next_s = min(self._next_look(at_s, alert), *(t for t in told if t > at_s), end_s)
            began_s = at_s
            for until_s in self._instants(at_s, next_s):
                self._service.passed(until_s - at_s, self._service.served(at_s))
                at_s = until_s
                if self._service.see(at_s):
                    self._switched(at_s)
            alert = self._look(at_s, at_s - began_s)
        return self._found

    def _next_look(self, at_s: float, alert: bool) -> float:
        if any(begin_s <= at_s < stop_s for begin_s, stop_s in self._story.close):
            return at_s + LOOK_S
        next_s = at_s + ALERT_S if alert else at_s + STEP_S - at_s % STEP_S
        return min([next_s, *(begin_s for begin_s, _ in self._story.close if begin_s > at_s)])

    def _instants(self, began_s: float, next_s: float) -> list[float]:
        """When something happens between two looks, and the second one."""
        times = [change.at_s for change in self._story.changes if began_s < change.at_s < next_s]
        if self._service.next is not None and began_s < self._service.switch_s < next_s:
            times.append(self._service.switch_s)
        return [*sorted(times), next_s] if times else [next_s]

    def _look(self, at_s: float, seconds: float) -> bool:
        """See, and judge where there is a reason; True where the next look should be soon."""
        look = self._eyes.look(at_s, seconds, self._service.served(at_s))
        notices = self._detectors.look(look)
        self._record.add(look)
        self._found.looks += 1
        keys = frozenset((one.kind, one.of) for one in concerns(notices)) if notices else frozenset()
        if keys - self._keys:
            self._new_s = at_s
            self._found.seen += [(at_s, one) for one in notices if (one.kind, one.of) in keys - self._keys]
        changed, self._keys = keys != self._keys, keys
        if any(one.kind in ILL for one in notices) or self._service.next is not None:
            self._well_s = at_s
        if self._study is not None and at_s >= self._study[0]:
            self._studied(at_s)
        elif (keys or self._unmeasured) and (changed or self._soon() or at_s - self._judged_s >= AGAIN_S):
            self._judge(at_s, notices)
        missing = any(one.likely < key[1] / 100 * one.total for key, one in look.within.items())
        return missing or self._service.next is not None or at_s - self._new_s < _CALM_S

    def _soon(self) -> bool:
        """Is something waited for, or missed just now?"""
        return self._waits or (self._record.missing and self._service.next is None)

    def _judge(self, at_s: float, notices: Sequence[Notice]) -> None:
        self._judged_s, site, here = at_s, self._story.world.site, self._service.layout
        demand = self._record.demand(BEGIN_S + at_s, notices)
        fingerprint = self._eyes.fingerprint(self._service.state)
        now = asked_now(site.request, demand, fingerprint, self._measured_on)
        if "engine" in now.changed or "link" in now.changed:
            self._known = replace(self._known, lived=())
        alike_s = since_alike(BEGIN_S + self._well_s, notices)
        shown = lived_since(self._record, here, alike_s, BEGIN_S + at_s)
        known = self._known if shown is None else replace(self._known, lived=(*self._known.lived, shown))
        known = informed(known, notices, here, now, self._record.missing, BEGIN_S + at_s)
        busy = self._service.next is not None or self._study is not None
        moved_s = None if self._moved_s < 0 else BEGIN_S + self._moved_s
        day, spent = self._today
        situation = Situation(
            BEGIN_S + at_s,
            tuple(notices),
            moved_s,
            rollout="one is under way" if busy else None,
            gpu_hours_today=spent if day == int(at_s // DAY_S) else 0.0,
            unmeasured=self._unmeasured,
            measured_s=self._measured_s,
        )
        told = judge(situation, self._policy, self._asked(now, here, known, known.left(now, BEGIN_S + at_s)))
        if told.action is not Action.NOTHING and not {HeldBy.GAIN, HeldBy.BLIND} & told.held_by.keys():
            self._found.proposed.append(at_s)
        self._waits = bool(_WAITS & told.held_by.keys()) and set(told.held_by) <= _WAITS
        if told.action in (Action.RETUNE, Action.MOVE, Action.EMERGENCY):
            self._found.actions.append((at_s, told, here))
            self._next_known = known
            self._do(at_s, told, now)

    def _asked(self, now: AskedNow, here: ParallelLayout, known: Known, left: frozenset[Deployment]) -> Outlook:
        of, request = self._story.world, now.request
        asked = None if request is None else (request.workload.model_dump_json(), request.groups[0].nodes)
        slower, engine = tuple(sorted(known.slower.items())), "engine" in now.changed
        learnt = (id(known.trials), slower, known.slower_on, tuple(known.shown(now).items()))
        key = (id(of), asked, engine, here, learnt, left)
        if key not in _outlooks:
            _outlooks[key] = outlook(now, here, known, left=left, simulate=False)
            _kept.append(known.trials)  # its id stays its own
        return _outlooks[key]

    def _do(self, at_s: float, told: Judgement, now: AskedNow) -> None:
        if told.outlook is None or told.outlook.best is None:
            return
        best = told.outlook.best
        if told.measures:
            self._measured_s = BEGIN_S + at_s
        if told.action is not Action.RETUNE or self._service.spare < best.gpus:  # the deployment itself is the trial
            self._unmeasured = not best.measured
            self._service.change(at_s, one_group(best.deployment), urgent=told.action is Action.EMERGENCY)
            return
        of, state, here = self._story.world, self._service.state, self._service.layout
        after = round_of(of, state, now, here, self._next_known, self._service.spare)
        hours = sum((trial.device_s or 0.0) for trial in after.trials) / 3600
        day = int(at_s // DAY_S)
        self._today = (day, hours + (self._today[1] if self._today[0] == day else 0.0))
        self._found.tuning_gpu_hours += hours
        left = after.left(now, BEGIN_S + at_s)
        again = outlook(replace(now, changed={}), here, after, left=left, simulate=False)
        self._next_known, self._measured_on = after, self._eyes.fingerprint(state)
        winner = again.best if again.best is not None and again.best.measured else None
        better = winner is not None and (again.gain > 0 or again.regains_slo or doubtful(again.present))
        if (
            winner is not None and not winner.meets
        ):  # a round that measures found none that does, but one that is better
            better = told.measures and carries_more(self._policy, again)
        chosen = one_group(winner.deployment) if winner is not None and better else None
        self._study = (at_s + TRIAL_S * max(len(after.trials), 1), chosen)

    def _studied(self, at_s: float) -> None:
        """A round has ended: its winner is rolled out, or the present layout is the decision again."""
        chosen = self._study[1] if self._study is not None else None
        self._study, self._unmeasured = None, False
        if chosen is not None and chosen in self._story.world.site.fitting(self._service.state.lost):
            self._service.change(at_s, chosen)
        else:
            self._adopt(at_s)

    def _switched(self, at_s: float) -> None:
        self._moved_s = at_s
        self._adopt(at_s)

    def _adopt(self, at_s: float) -> None:
        self._known, self._keys = self._next_known, frozenset()
        self._record.heed(self._detectors.notices)
        self._detectors.decided(BEGIN_S + at_s)
        self._expected, self._well_s = self._model(), at_s

    def _model(self) -> ExpectedByModel:
        """What is expected of what serves; shared by all episodes in which the same is known."""
        of, here = self._story.world, self._service.layout
        key = (id(of), here, id(self._known))
        if key not in _models:
            _models[key] = ExpectedByModel(of.site.request, here, self._known)
            _kept.append(self._known)
        return _models[key]


_kept: list[object] = []
