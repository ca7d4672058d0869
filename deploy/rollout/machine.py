"""Drives the rollouts of one watched study: what is stored and what is seen → the next move → made.

It remembers nothing that it could not see again: it may be killed at any place, and another goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from tuner.errors import LaunchFailed
from tuner.retune.live import LiveDeployment
from tuner.retune.lives import lives_after
from tuner.retune.moves import CanaryAnswer, Facts, Move, Patience, Route, Start, Stop, Wait, Warm, Write
from tuner.retune.next_step import next_step
from tuner.retune.rollout import ENDS, Rollout, Step, Way, Wish
from tuner.retune.site import DeploymentSeen, Readiness, Site, SiteSeen
from tuner.study.store import Store
from tuner.study.watched import Claim

Canary = Callable[[Rollout], CanaryAnswer]
_MOST_MOVES = 50  # between two waits; a rollout has a dozen steps


@dataclass(frozen=True, slots=True)
class Progress:
    """The rollout as it is now, the moves that were made, and what is waited for; None where none is under way."""

    rollout: Rollout | None
    moves: tuple[Move, ...] = ()
    waits: Wait | None = None


@dataclass
class RolloutMachine:
    """One claim's rollouts on one site. ``patience`` but for starts, which have what their request says.

    Raises what store and site raise: LeaseLost where another watches by now, ParlayError where the site cannot be
    asked. After either it may be asked again.
    """

    store: Store
    site: Site
    claim: Claim
    patience: Patience = field(default_factory=Patience)
    clock: Callable[[], float] = time.time
    _warmed: tuple[int, str] | None = None
    _refused: dict[str, str] = field(default_factory=dict)

    def advance(self, canary: Canary) -> Progress:
        """Make moves until one has to wait, or the rollout has come to its end; ``canary`` is asked once, while one
        runs. While a rollout is under way, requests that find nothing that serves may wait for what it brings."""
        self._hold(self.store.rollouts.open(self.claim.study))
        found = self._advance(canary)
        self._hold(found.rollout)
        return found

    def _hold(self, rollout: Rollout | None) -> None:
        """Before anything is made, as that may take long. It is said at every look, so that nobody need claim it."""
        awaited = rollout is not None and rollout.step not in ENDS
        if rollout is not None and rollout.step is Step.PLANNED:
            awaited = rollout.approved or rollout.wish is Wish.FORCE
        self.site.hold(self.store.watched.watched(self.claim.study).policy.hold if awaited else None)

    def _advance(self, canary: Canary) -> Progress:
        moves: list[Move] = []
        canary = cache(canary)
        while len(moves) < _MOST_MOVES:
            rollout = self.store.rollouts.open(self.claim.study)
            if rollout is None:
                ended = self.store.rollouts.of(self.claim.study)[:1] if moves else ()
                return Progress(next(iter(ended), None), tuple(moves))
            move = self.next_move(rollout, canary)
            if isinstance(move, Wait):
                return Progress(rollout, tuple(moves), move)
            made = self._make(rollout, move)
            moves.append(move)
            if not made:
                return Progress(rollout, tuple(moves), Wait("its first answers are awaited"))
        return Progress(rollout, tuple(moves), Wait("it moves on and on"))

    def next_move(self, rollout: Rollout, canary: Canary) -> Move:
        """What it would do next, without doing it."""
        watched = self.store.watched.watched(rollout.watched)
        new, seen = self._live(rollout.new), self._seen()
        facts = Facts(
            seen=seen,
            now_s=self.clock(),
            canary=canary(rollout) if rollout.step is Step.CANARY else CanaryAnswer(),
            warmed=self._warmed == (rollout.number, rollout.new),
            paused=watched.paused,
            room=self._has_room(rollout, new, seen),
            policy=watched.policy.canary,
            patience=replace(self.patience, start_s=self.store.study(new.study).request.engine.start_timeout_s),
        )
        return next_step(rollout, facts)

    def _has_room(self, rollout: Rollout, new: LiveDeployment, seen: SiteSeen) -> bool:
        """Whether what comes in need not wait for the last of one that had died; that is asked only then."""
        old = seen.deployments.get(rollout.old or "")
        leaves = rollout.step is Step.STOPPING_OLD and old is not None and old.readiness is Readiness.LEAVING
        if not leaves or rollout.way is not Way.REPLACE:
            return False
        return self.site.no_room_for(new, self.store.study(new.study).request) is None

    def _seen(self) -> SiteSeen:
        seen = self.site.see()
        refused = {name: DeploymentSeen(Readiness.FAILED, why) for name, why in self._refused.items()}
        there: Mapping[str, DeploymentSeen] = {
            name: one for name, one in seen.deployments.items() if one.readiness is not Readiness.ABSENT
        }
        return replace(seen, deployments={**refused, **there})

    def _make(self, rollout: Rollout, move: Move) -> bool:
        """Make a move; False where it has to be waited for. A site knows no claims: that is looked at just before."""
        if not isinstance(move, Write):
            self.store.watched.beat(self.claim)
        match move:
            case Write(after, proven):
                lives = lives_after(after, self.store.live.of(after.watched), self.clock(), proven=proven)
                self.store.rollouts.move(rollout, after, lives, self.claim)  # where it changed meanwhile: look again
            case Start(name):
                self._start(self._live(name))
            case Warm(name):
                self._warmed = (rollout.number, name) if self.site.warm(name) else None
                return self._warmed is not None
            case Route(shares):
                self.site.route(shares)
            case Stop(name):
                self._refused.pop(name, None)
                self.site.stop(name)
        return True

    def _start(self, live: LiveDeployment) -> None:
        try:
            self.site.start(live, self.store.study(live.study).request)
        except LaunchFailed as error:
            self._refused[live.name] = error.detail

    def _live(self, name: str) -> LiveDeployment:
        found = self.store.live.find(name)
        assert found is not None, f"{name} is stored with its rollout"
        return found
