"""Whether the level of a series has changed: a test on all time scales at once, with a stated false-alarm rate.

The series comes in bins. On scale j the means of blocks of 2^j bins are compared with what such blocks were before, by
Student's t, each as its block ends: short blocks show a great change soon, long ones a small change late. This is the
window-limited likelihood ratio test for a change of the mean (Lai 1995, "Sequential changepoint detection in quality
control and dynamical systems", JRSS B 57) with windows of geometric lengths, as Lai and Xing (2010, "Sequential
change-point detection when the pre- and post-change parameters are unknown", Sequential Analysis 29) advise, and with
blocks side by side in place of sliding ones: a few operations per bin.

- **False alarms.** A block's level of significance is the allowed false alarms per week, times the block's part of a
  week, divided by the number of scales. By the union bound no more than that number come about per week, however the
  tests depend on each other. What it takes for granted is Student's t for block means.
- **Variance.** It is estimated on each scale from blocks of that very scale (batch means), which have in them what
  neighbouring bins share; blocks still depend on each other, which ``design_effect`` discounts. It is never taken as
  less than sampling alone makes it (``variance`` of each bin). The least number of blocks is four, so that a day's mean
  is compared only after half a week.
- **What has not been seen yet.** How much a level wanders within a day is not known before a day has been seen.
  Until then a deviation of ``wander`` is allowed for in addition: half of it after one ``season_s`` at the same
  level, a third after two. A young level shows great changes alone.
- **Spikes.** Both halves of a block have to deviate: one wild bin is no change of level.
- **Relevance.** What is smaller than ``least_change`` is not told, however certain.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tuner.stats.series import design_effect

DAY_S = 86_400.0
WEEK_S = 7 * DAY_S
LEAST_BLOCKS = 4  # of which a reference has to consist, and its scatter be known
_SCALES = 12
_TINY = 1e-12  # variance of a series that never moves
_FREEDOM_OF_KNOWN = 50.0  # degrees of freedom of a variance that is not estimated: of sampling, and ``wander``
_LEAST_DEPENDENT = 8  # blocks that tell how they depend on each other
_KEPT_BLOCKS = 64  # of which the dependence of blocks is judged
_MOST_WAITING = 8  # blocks, before one joins the reference
_KEPT_BINS = 256  # among which the begin of a change is looked for
_HALF = 0.5  # of a block's deviation, which each of its halves must show


@dataclass(frozen=True, slots=True)
class LevelSettings:
    """How a series is tested. Levels are in the unit of the series. ``upward``: only a rise is told."""

    least_change: float
    false_per_week: float = 0.02
    wander: float = 0.1
    season_s: float = DAY_S
    upward: bool = False


@dataclass(frozen=True, slots=True)
class Bin:
    """One value of a series: a mean over the ``seconds`` that were seen between two times, and the variance that
    sampling alone gives to it."""

    begin_s: float
    end_s: float
    seconds: float
    value: float
    variance: float


@dataclass(frozen=True, slots=True)
class Change:
    """The level is ``after`` in place of ``before``, since ``since_s``; so sure that accidents as great come about
    ``per_week`` times a week."""

    since_s: float
    before: float
    after: float
    per_week: float


def normal_deviate(t: float, freedom: float) -> float:
    """The deviate of the normal distribution as improbable as this one of Student's t (Wallace 1959, "Bounds on normal
    approximations to Student's and the chi-square distributions"): right to a percent, far out as well."""
    scale = (8 * freedom + 1) / (8 * freedom + 3)
    return math.copysign(scale * math.sqrt(freedom * math.log1p(t * t / freedom)), t)


@dataclass(slots=True)
class _Reference:
    """Blocks of one scale that a new one is compared with."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # about the means of the times between changes
    freedom: float = 0.0
    sampling: float = 0.0  # mean variance of a block by sampling alone
    dependence: float = 1.0
    kept: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT_BLOCKS))

    def add(self, value: float, sampling: float) -> None:
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self.squares += off * (value - self.mean)
        self.freedom += 1.0 if self.count > 1 else 0.0
        self.sampling += (sampling - self.sampling) / self.count
        self.kept.append(value)
        if self.count >= _LEAST_DEPENDENT and self.count & (self.count - 1) == 0:  # at powers of two: it costs
            self.dependence = design_effect(self.kept)

    def restart(self) -> None:
        """A change: the mean is unknown again; how blocks scatter is not."""
        self.count, self.mean = 0, 0.0
        self.kept.clear()

    def deviate(self, value: float, sampling: float, centre: float | None, wander: float) -> float:
        """How far a block lies from the others, as a deviate of the normal distribution."""
        dependence = min(self.dependence, max(1.0, self.count / 2))
        free = self.freedom / dependence
        seen = self.freedom + 1
        scatter = self.squares / self.freedom / (1 - min(0.5, (dependence - 1) / seen)) if self.freedom else 0.0
        known = max(sampling, self.sampling)
        part, freedom = (scatter, max(1.0, free)) if scatter > known else (known, _FREEDOM_OF_KNOWN)
        unseen = wander * wander
        variance = max(part + unseen, _TINY)
        of_mean = 0.0 if centre is not None else variance * dependence / self.count
        off = value - (self.mean if centre is None else centre)
        # Degrees of freedom of a sum of variances: Satterthwaite (1946), Biometrics Bulletin 2.
        joint = variance * variance / max(part * part / freedom + unseen * unseen / _FREEDOM_OF_KNOWN, _TINY * _TINY)
        return normal_deviate(off / math.sqrt(variance + of_mean), joint)


@dataclass(slots=True)
class _Block:
    begin_s: float
    seconds: float
    value: float
    variance: float
    halves: tuple[float, float] | None  # None: a single bin


class LevelTest:
    """The level of one series. ``centre``: where it has to be at first; None: where its first bins say."""

    def __init__(self, settings: LevelSettings, centre: float | None = None) -> None:
        self.settings, self._centre = settings, centre
        self._references = [_Reference() for _ in range(_SCALES)]
        self._pending: list[_Block | None] = [None] * _SCALES
        self._waiting: list[deque[_Block]] = [deque() for _ in range(_SCALES)]
        self._recent: deque[Bin] = deque(maxlen=_KEPT_BINS)
        self._level_s = 0.0  # seen since the last change
        self._sum, self._bins = 0.0, 0

    @property
    def level(self) -> float | None:
        """The mean since the last change; None before anything was seen."""
        return self._sum / self._bins if self._bins else self._centre

    @property
    def wander(self) -> float:
        """The deviation that is allowed for what has not been seen yet."""
        return self.settings.wander / (1 + self._level_s / self.settings.season_s)

    def add(self, one: Bin) -> Change | None:
        """Take in the next bin; the change that it shows, if any."""
        self._recent.append(one)
        self._sum, self._bins = self._sum + one.value, self._bins + 1
        self._level_s += one.seconds
        block = _Block(one.begin_s, one.seconds, one.value, one.variance, None)
        for scale in range(_SCALES):
            if block.halves is not None:
                change = self._judge(scale, block, block.halves)
                if change is not None:
                    return change
                self._learn(scale, block)
            other = self._pending[scale]
            if other is None:
                self._pending[scale] = block
                return None
            self._pending[scale] = None
            block = _joined(other, block)
        return None

    def _learn(self, scale: int, block: _Block) -> None:
        """Blocks join the reference late, when those after them have passed: part of a change may be in them."""
        waiting, reference = self._waiting[scale], self._references[scale]
        if self._level_s < WEEK_S or reference.count < _KEPT_BLOCKS:
            waiting.append(block)
            if len(waiting) > 1 + min(_MOST_WAITING, reference.count // 2):
                before = waiting.popleft()
                reference.add(before.value, before.variance)

    def _judge(self, scale: int, block: _Block, halves: tuple[float, float]) -> Change | None:
        reference, centre = self._references[scale], self._centre
        if reference.freedom < LEAST_BLOCKS - 1 or (centre is None and reference.count < LEAST_BLOCKS):
            return None
        before = reference.mean if centre is None else centre
        off = block.value - before
        if abs(off) < self.settings.least_change or (self.settings.upward and off < 0):
            return None
        if min((half - before) * off for half in halves) < _HALF * off * off:
            return None
        deviate = abs(reference.deviate(block.value, block.variance, centre, self.wander))
        per_week = math.erfc(deviate / math.sqrt(2)) * _SCALES * WEEK_S / block.seconds
        if not per_week <= self.settings.false_per_week:  # not a number: no evidence
            return None
        since_s = self._since(before, halves[1], block.begin_s)
        self._restart(since_s)
        return Change(since_s, before, self.level if self.level is not None else block.value, per_week)

    def _since(self, before: float, after: float, at_most_s: float) -> float:
        """When the change most likely was: where the likelihood of two levels, parted there, is greatest. Where that is
        longer ago than bins are kept, ``at_most_s``, the begin of the block."""
        if self._recent[0].begin_s > at_most_s:
            return at_most_s
        best, total, since_s = -math.inf, 0.0, at_most_s
        middle, up = (before + after) / 2, 1.0 if after > before else -1.0
        for one in reversed(self._recent):
            total += up * (one.value - middle)
            if total > best:
                best, since_s = total, one.begin_s
        return since_s

    def _restart(self, since_s: float) -> None:
        """A new level begins, at ``since_s``; what its first bins were is all that is known of it."""
        later: Sequence[Bin] = [one for one in self._recent if one.begin_s >= since_s]
        self._recent = deque(later, maxlen=_KEPT_BINS)
        self._sum, self._bins = sum(one.value for one in later), len(later)
        self._level_s = sum(one.seconds for one in later)
        self._centre = None
        for reference in self._references:
            reference.restart()
        self._pending, self._waiting = [None] * _SCALES, [deque() for _ in range(_SCALES)]


def _joined(first: _Block, second: _Block) -> _Block:
    halves = (first.value, second.value)
    seconds = first.seconds + second.seconds
    return _Block(first.begin_s, seconds, sum(halves) / 2, (first.variance + second.variance) / 4, halves)
