"""Episodes: two weeks of a site's load, and what changes in them. Most of it is in the second week, when a week's load
is known; the same number makes the same episode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tests.benchmarks.retune_world import MARGIN, SITES, WORLDS, Replica, Served, State, World, world
from tuner.retune.seen import Blindness

DAY_S = 86400.0
DAYS = 14
BEGIN_S = 1_767_571_200.0  # a Monday, 00:00 UTC
STEP_S = 300.0
KINDS = ("quiet", "diurnal", "nodes", "link", "upgrade", "drift", "shift")
_CLOSE_S = (900.0, 3600.0)  # before and after
CALM = ("quiet", "diurnal")  # in which nothing changes


@dataclass(frozen=True)
class Change:
    """From ``at_s`` on (s since the begin), this is so."""

    at_s: float
    state: State


@dataclass(frozen=True)
class Story:
    """One episode. ``changes`` are in their order; ``depth`` is how far the load falls at night, as a share."""

    number: int
    kind: str
    world: World
    changes: tuple[Change, ...]
    depth: float
    weekend: float
    jitter: float

    @cached_property
    def random(self) -> np.random.Generator:
        """What chance there is in it."""
        return np.random.default_rng([7, self.number])

    def state(self, at_s: float) -> State:
        """What is so at a time."""
        found = State()
        for change in self.changes:
            if change.at_s > at_s:
                break
            found = change.state
        return found

    @cached_property
    def rates(self) -> list[float]:
        """Requests/s in steps of ``STEP_S``, without what changes do to them: the day's and the week's course, what
        drifts slowly about it, and in quiet weeks some bursts of ten minutes."""
        at_s = np.arange(0, DAYS * DAY_S, STEP_S)
        random = np.random.default_rng([8, self.number])
        course = 1 - self.depth * (1 + np.cos(2 * math.pi * (at_s / DAY_S - 0.1))) / 2
        course *= np.where(at_s // DAY_S % 7 >= 5, 1 - self.weekend, 1.0)
        steps = random.standard_normal(at_s.size) * math.sqrt(1 - _KEPT**2)
        wander = np.zeros(at_s.size)
        for i in range(1, at_s.size):
            wander[i] = _KEPT * wander[i - 1] + steps[i]
        course *= np.exp(0.015 * np.clip(wander, -3, 3))
        if self.kind == "quiet":
            for begin in random.integers(0, at_s.size - 2, size=2 * DAYS // 7):
                course[begin : begin + 2] *= 1.5
        peak = self.world.site.request.workload.arrival.requests_per_s / MARGIN
        return [float(rate) for rate in peak * course]

    def rate(self, at_s: float) -> float:
        """Requests/s at a time, without what changes do to it."""
        return self.rates[min(int(at_s // STEP_S), len(self.rates) - 1)]

    @cached_property
    def close(self) -> tuple[tuple[float, float], ...]:
        """Times about what changes at once, or at a random time where nothing does, that are looked at as often as
        ``parlay watch`` looks; a longer time between looks elsewhere makes episodes cheap."""
        if self.kind == "nodes":  # of which somebody tells
            return ()
        times = [change.at_s for change in self.changes[:1]]
        if self.kind in CALM:
            times = [float(np.random.default_rng([10, self.number]).uniform(7.5, 9.5)) * DAY_S]
        return tuple((at_s - _CLOSE_S[0], at_s + _CLOSE_S[1]) for at_s in times)

    @cached_property
    def _served(self) -> dict[tuple[Replica, float], Served]:
        return {}

    def served(self, replica: Replica, rate: float) -> Served:
        """What requests see of a replica at a rate: computed once, however often the episode is played."""
        key = (replica, rate)
        if key not in self._served:
            self._served[key] = replica.at(rate)
        return self._served[key]

    @cached_property
    def blind(self) -> dict[int, frozenset[Blindness]]:
        """Steps in which an address of metrics is away: in quiet weeks, some times for some minutes."""
        if self.kind != "quiet":
            return {}
        random = np.random.default_rng([9, self.number])
        begins = random.integers(0, int(DAYS * DAY_S / STEP_S), size=4)
        return {int(begin) + i: frozenset({Blindness.UNREACHABLE}) for begin in begins for i in range(2)}


_KEPT = 0.97  # of a wander from one step to the next


FRESH = 98_000  # episodes from this number on, in worlds of their own, are for reports: nothing is tuned on them


def place(number: int) -> tuple[int, int]:
    """(site, seed of the world) of an episode."""
    turn = number // len(KINDS)
    return turn % SITES, turn // SITES % WORLDS + WORLDS * (number // FRESH)


def story(number: int) -> Story:
    """An episode by its number; kinds, sites and worlds take turns."""
    kind = KINDS[number % len(KINDS)]
    of = world(*place(number))
    random = np.random.default_rng([6, number])
    depth, weekend = (
        (0.6, 0.3) if kind == "diurnal" else (float(random.uniform(0, 0.5)), float(random.choice([0, 0.2])))
    )
    if kind == "quiet":
        depth, weekend = 0.1, 0.0
    begin_s = float(random.uniform(7.5, 9.5)) * DAY_S
    changes = _CHANGES[kind](of, begin_s, random) if kind in _CHANGES else ()
    return Story(number, kind, of, tuple(changes), depth, weekend, 0.02 if kind in CALM else 0.01)


def _nodes(of: World, begin_s: float, random: np.random.Generator) -> Sequence[Change]:
    """Nodes under the layout go, and come back after hours or days."""
    most = of.site.nodes - 1
    while most > 1 and not of.site.fitting(most):
        most -= 1
    lost = int(random.integers(1, most + 1)) if of.site.fitting(1) else 0
    back_s = begin_s + float(random.uniform(0.25, 3)) * DAY_S
    return Change(begin_s, State(lost=lost)), Change(back_s, State())


def _link(of: World, begin_s: float, random: np.random.Generator) -> Sequence[Change]:
    return (Change(begin_s, State(link=float(random.choice([0.7, 0.5, 0.25])))),)


def _upgrade(of: World, begin_s: float, random: np.random.Generator) -> Sequence[Change]:
    return (Change(begin_s, State(release=1)),)


def _drift(of: World, begin_s: float, random: np.random.Generator) -> Sequence[Change]:
    """Prompts become longer for five days, by a twentieth at a time."""
    whole = float(random.choice([1.5, 2.0, 2.5]))
    steps = round(math.log(whole) / 0.05)
    each_s = 5 * DAY_S / steps
    return [
        Change(begin_s - DAY_S + i * each_s, State(prompt=round(math.exp(0.05 * (i + 1)), 4))) for i in range(steps)
    ]


def _shift(of: World, begin_s: float, random: np.random.Generator) -> Sequence[Change]:
    kind = random.choice(["prompts", "rate"])
    return (Change(begin_s, State(prompt=4.0) if kind == "prompts" else replace(State(), rate=2.0)),)


_CHANGES = {"nodes": _nodes, "link": _link, "upgrade": _upgrade, "drift": _drift, "shift": _shift}
