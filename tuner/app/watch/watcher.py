"""A watcher of one study: an iteration looks at what serves, judges, and acts. All that it needs is in the store.

It may be killed anywhere: what it begins is stored before it is done, and the next iteration, of whatever process, goes
on with what is there. With a claim it acts; without one it only says what it would do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from deploy.rollout.machine import Progress, RolloutMachine
from serve.measure.live_reader import Fetch, fetch_text
from tuner.app.answers.watch import StandingAnswer
from tuner.app.watch.acting import Move, Plan, begin, planned
from tuner.app.watch.canaries import Canaries
from tuner.app.watch.eyes import Eyes
from tuner.app.watch.glance import Glance, glance
from tuner.app.watch.judging import Case, Judged, expected_of, judged, layouts
from tuner.app.watch.memory import Memory
from tuner.app.watch.noticing import Noticing
from tuner.app.watch.outage import last_served, not_again
from tuner.app.watch.place import Place
from tuner.app.watch.proposing import forced, move_of, round_of
from tuner.app.watch.rounds import OVER, Rounds
from tuner.app.watch.standing import standing
from tuner.app.watch.telling import tell
from tuner.errors import BadInput, LeaseLost, reason
from tuner.retune.detect.residual import Expected
from tuner.retune.judgement import Action
from tuner.retune.live import LiveDeployment
from tuner.retune.measuring import WHY
from tuner.retune.notice import Notice
from tuner.retune.policy import RetunePolicy
from tuner.retune.seen import Fingerprint, Look
from tuner.retune.situation import SETTLES_S, Situation
from tuner.study.store import Store
from tuner.study.watched import Claim


@dataclass(frozen=True, slots=True)
class _Round:
    """What became of a round: what is remembered, what is told; ``under_way`` in words while it is being decided."""

    memory: Memory
    acted: list[str] = field(default_factory=list)
    under_way: str | None = None
    ended: bool = False


@dataclass
class Watcher:
    """``claim`` None: a dry run, which changes nothing anywhere. ``policy``: another than the study's, to see what it
    would make of it."""

    store: Store
    study: str
    place: Place
    rounds: Rounds
    claim: Claim | None
    shortened: float = 1.0
    clock: Callable[[], float] = time.time
    fetch: Fetch = fetch_text
    policy: RetunePolicy | None = None
    eyes: Eyes = field(init=False)
    noticing: Noticing = field(init=False)
    _canaries: Canaries = field(init=False)
    _machine: RolloutMachine | None = None
    _seen: Fingerprint | None = None

    def __post_init__(self) -> None:
        self.eyes = Eyes(self.place, self.fetch, self.clock)
        self._canaries = Canaries(self.store)
        self.noticing = Noticing(self.store.looks, self.study, self.shortened, self._expected)

    def iterate(self) -> StandingAnswer:
        """One look, and what follows from it. Raises LeaseLost where another watches by now; of other errors the next
        iteration makes up, and this one says so."""
        at_s = self.clock()
        try:
            found, memory = self._iterate(at_s)
        except LeaseLost:
            raise
        except Exception as error:  # of the place's, or a fault of ours: neither may end the watching
            memory = Memory.of(self.store.watched.watched(self.study).memory)
            found = standing(at_s, (), None, None, (), None, reason(error))
        if self.claim is not None:
            told = tell(self.store.events, self.study, found, memory.told)
            kept = memory.model_copy(update={"standing": found, "told": told, "shortened": self.shortened})
            self.store.watched.remember(self.claim, kept.model_dump(mode="json"))
        return found

    def prepare(self) -> None:
        """For whoever watches for long: have ready what an emergency would wait for."""
        self.place.prepare()

    def close(self) -> None:
        """Let go of place and rounds; what serves goes on serving."""
        self.rounds.close()
        self.place.close()

    def _iterate(self, at_s: float) -> tuple[StandingAnswer, Memory]:
        state = glance(self.store, self.study, at_s)
        notices = self._noticed(state)
        progress = self._advance()
        if progress is not None and progress.moves:
            state = glance(self.store, self.study, at_s)  # what serves may be another by now
        heeded = self._round(state, at_s)
        lost = last_served(state, self.store.rollouts.of(self.study)) if state.serving is None else None
        if lost is not None:
            return self._outage(state, lost, heeded.memory, at_s)
        if state.serving is None or state.rollout is not None:
            return standing(at_s, notices, None, progress, heeded.acted, heeded.under_way), heeded.memory
        self._prove(state.serving)
        case = self._case(state, state.serving, heeded, notices, at_s)
        found = judged(self.store, case, self._policy(state), lambda one: self.place.refuses(one, state.request))
        memory, acted = self._act(state, state.serving, found, heeded.memory, at_s)
        if heeded.ended and found.judgement.action is Action.NOTHING:
            memory = memory.model_copy(update={"decided_s": at_s})
        progress = self._advance() if acted else progress
        told = standing(at_s, notices, found.judgement, progress, [*heeded.acted, *acted], heeded.under_way)
        return told, memory

    def _outage(
        self, state: Glance, last: LiveDeployment, memory: Memory, at_s: float
    ) -> tuple[StandingAnswer, Memory]:
        """Nothing serves, and ``last`` served last: have it come up again, or the best that can."""
        self._seen = self.eyes.fingerprint()
        self.noticing.notices(last, state.request, memory.decided_s)  # its load is what there is to serve
        there = self.place.site.see()
        situation = Situation(
            at_s=at_s,
            foreign=there.foreign,
            paused=state.watched.paused,
            approved=layouts(state.said.approved),
            vetoed=layouts(not_again(state, last, state.vetoed(self._seen), at_s)),
            outage=f"nothing serves any more; {last.name} ({last.deployment}) did last",
        )
        looks = (*self.noticing.recent, Look(at_s, 0.0, fingerprint=self._seen))
        lived = tuple(one.lived() for one in memory.lived)
        load = self.noticing.load
        case = Case(
            last, load, looks, situation, state.rounds, lived, memory.slower, memory.slowed, before=memory.demand
        )
        found = judged(self.store, case, self._policy(state), lambda one: self.place.refuses(one, state.request))
        asked, remains = forced(self.store, state, None), last if last.name in there.deployments else None
        move = asked or move_of(self.store, state, found)
        acted = [] if move is None else [self._begin(state, remains, move, at_s)]
        progress = self._advance() if acted else None
        return standing(at_s, (), found.judgement, progress, acted, None), memory

    def _policy(self, state: Glance) -> RetunePolicy:
        return self.policy or state.watched.policy

    def _expected(self, live: LiveDeployment) -> Expected | None:
        try:
            return expected_of(self.store, live, glance(self.store, self.study, self.clock()).rounds, self.clock())
        except BadInput:  # the model cannot price it: what it takes at first is what is expected
            return None

    def _noticed(self, state: Glance) -> tuple[Notice, ...]:
        """Look, keep what was seen, and say what it means for what serves."""
        if self.claim is not None or not state.watched.watcher:
            looks = self.eyes.look(state.names, state.request.slo)
            self._seen = next((one.fingerprint for one in looks.values() if one.fingerprint), None)
            if self.claim is not None:
                self.store.looks.keep(self.study, looks)
                self._canaries.keep(state.rollout, looks, self.claim)
            elif state.serving is not None and state.serving.name in looks:
                self.noticing.glimpse(state.serving, state.request, looks[state.serving.name])
        if state.serving is None:
            return ()
        return self.noticing.notices(state.serving, state.request, state.memory.decided_s)

    def _prove(self, serving: LiveDeployment) -> None:
        """What served well for a while is good, and what a rollout would go back to."""
        if self.claim is not None and not serving.good and self.noticing.is_proven:
            self.store.live.change(replace(serving, good=True), self.claim)

    def _advance(self) -> Progress | None:
        """Go on with the rollout that is under way."""
        if self.claim is None:
            rollout = self.store.rollouts.open(self.study)
            return None if rollout is None else Progress(rollout)
        if self._machine is None:
            self._machine = RolloutMachine(self.store, self.place.site, self.claim, clock=self.clock)
        return self._machine.advance(self._canaries)

    def _round(self, state: Glance, at_s: float) -> _Round:
        """Heed a round that has ended: what it measured is known to the judgement from now on."""
        memory = state.memory
        if memory.round is None:
            return _Round(memory)
        stands = self.rounds.stands(memory.round) if self.claim is not None else self.store.listing.state(memory.round)
        if stands is None:  # killed before it was made: the judgement comes to it again
            return _Round(memory.model_copy(update={"round": None}))
        if stands not in OVER:
            return _Round(memory, under_way=f"{memory.round} is being decided: {memory.round_why}")
        over = memory.model_copy(update={"round": None, "round_ended_s": at_s})
        return _Round(over, [f"{memory.round} has ended: it is {stands.value}"], ended=True)

    def _case(
        self,
        state: Glance,
        serving: LiveDeployment,
        heeded: _Round,
        notices: tuple[Notice, ...],
        at_s: float,
    ) -> Case:
        site, memory = self.place.site.see(), heeded.memory
        situation = Situation(
            at_s=at_s,
            notices=notices,
            moved_s=state.moved_s,
            rollout=heeded.under_way,
            foreign=site.foreign,
            paused=state.watched.paused,
            approved=layouts(state.said.approved),
            vetoed=layouts(state.vetoed(self._seen)),
            gpu_hours_today=state.gpu_hours_today,
            unmeasured=serving.trial is None,
            measured_s=memory.measured_s,
            settles_s=SETTLES_S / self.shortened,
        )
        lived = tuple(one.lived() for one in memory.lived)
        seen = self.noticing
        learnt = (lived, memory.slower, memory.slowed, seen.well_s, memory.demand)
        return Case(serving, seen.load, seen.recent, situation, state.rounds, *learnt)

    def _act(
        self, state: Glance, serving: LiveDeployment, found: Judged, memory: Memory, at_s: float
    ) -> tuple[Memory, list[str]]:
        """Begin what is to be done, or what a human forced."""
        asked = forced(self.store, state, serving)
        move = asked or move_of(self.store, state, found)
        if found.judgement.measures and asked is None:
            memory = memory.model_copy(update={"measured_s": at_s})
        if move is not None:
            return memory.learnt(found.known, found.now), [self._begin(state, serving, move, at_s)]
        if found.judgement.action is not Action.RETUNE:
            return memory, []
        request, rests_s = round_of(found), 3600 * self._policy(state).cool_down_hours
        if request is None:
            return memory, ["held: nothing is free for trials"]
        rested = found.judgement.measures  # by its own key
        if not rested and memory.round_ended_s is not None and at_s - memory.round_ended_s < rests_s:
            return memory, ["held: a round has ended within the cool-down; another waits for its end"]
        best = found.judgement.outlook.best if found.judgement.outlook is not None else None
        why = f"{best.deployment} may be better" if best is not None else found.judgement.why
        if found.judgement.measures:
            why = f"it measures, as {WHY}"
        if self.claim is None:
            return memory, [f"would decide anew: {why}"]
        name = self.store.rounds.take(self.study)
        memory = memory.learnt(found.known, found.now).model_copy(update={"round": name, "round_why": why})
        self.store.watched.remember(self.claim, memory.model_dump(mode="json"))
        self.rounds.begin(name, request)
        return memory, [f"{name} decides anew: {why}"]

    def _begin(self, state: Glance, serving: LiveDeployment | None, move: Move, at_s: float) -> str:
        """Begin a rollout, or in a dry run say that it would."""
        approved = str(move.deployment) in state.said.approved
        plan = planned(
            self.store, self.place, self.study, serving, move, self._policy(state), approved, at_s, self._seen
        )
        if not isinstance(plan, Plan):
            return f"held: {plan}"
        if self.claim is None:
            return f"would roll out {move.deployment}, {plan.rollout.way.value.replace('_', ' ')}: {move.why}"
        begun = begin(self.store, self.claim, plan, move.deployment)
        return f"rollout {begun.number} to {begun.new} ({move.deployment}) has begun: {move.why}"
