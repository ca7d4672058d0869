"""What a workload is made of, as series whose level can be tested: of each look, what it says of one of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace

from tuner.retune.detect.bins import Bins, BinSize, as_logarithm
from tuner.retune.detect.levels import WEEK_S, Bin, LevelSettings
from tuner.retune.detect.season import Season, Slots
from tuner.retune.seen import Look

# A sixth of lengths more or less is worth no word, nor are a quarter of the rate and an eighth of the prompt tokens
# that a cache holds. ``wander`` is how far each may go within a day or week that has not been seen, as a deviation.
LENGTHS = LevelSettings(least_change=math.log(1.2), wander=0.1)
RATE = LevelSettings(least_change=math.log(1.25), wander=0.1)
SEASONAL_RATE = replace(RATE, season_s=WEEK_S)
PREFIX = LevelSettings(least_change=0.125, wander=0.1)
_WARM_S = 900.0  # in which a cache that was empty fills
_CV = 1.0  # deviation ÷ mean of lengths, where the engine does not tell: that of an exponential distribution


class Signal(ABC):
    """One part of a workload. ``of`` names it, ``unit`` says of what it has how many; levels are what is tested, a
    logarithm unless a signal says otherwise."""

    of: str
    figure: str  # its name with its unit, for machines
    unit: str
    settings: LevelSettings
    reference: float | None = None  # the level that it has to have; None: the one that is seen first

    @abstractmethod
    def add(self, look: Look) -> Bin | None:
        """What a look says; the bin that ends with it, if one does."""

    def value(self, level: float) -> float:
        """The value of a level, in ``unit``."""
        return math.exp(level)

    def settled(self, away: float | None) -> None:  # noqa: B027 - most signals need not know
        """What became of the last bin: the level, if it is away from the reference."""

    def decided(self) -> None:  # noqa: B027
        """The present level is the reference."""


class Lengths(Signal):
    """Tokens per request, of ``prompt`` or of ``output``."""

    settings = LENGTHS

    def __init__(self, part: str, size: BinSize) -> None:
        self.of = self.figure = f"{part}_tokens"
        self.unit = f"{part} tokens per request"
        self._prompt, self._bins = part == "prompt", Bins(size)

    def add(self, look: Look) -> Bin | None:
        tokens = look.prompt if self._prompt else look.output
        if tokens is None or not 0 < tokens.mean < math.inf:
            return None
        sd = _CV * tokens.mean if tokens.sd is None else tokens.sd
        one = self._bins.add(look.at_s, look.seconds, tokens.requests, tokens.mean, sd * sd)
        return one and as_logarithm(one)


class PrefixShare(Signal):
    """The part of prompt tokens that a cache held; its level is the arc sine of its root, whose scatter is alike
    everywhere."""

    settings = PREFIX
    of = figure = "prefix_share"
    unit = "of the prompt tokens in a cache"

    def __init__(self, size: BinSize) -> None:
        self._bins, self._from_s = Bins(size), math.nan

    def add(self, look: Look) -> Bin | None:
        if math.isnan(self._from_s):
            self._from_s = look.at_s + _WARM_S
        share, requests = look.prefix_share, look.prompt.requests if look.prompt else look.arrived
        if share is None or not 0 <= share <= 1 or not requests or look.at_s < self._from_s:
            return None
        one = self._bins.add(look.at_s, look.seconds, requests, share, 0.25)  # the arc sine's, of one request
        return one and replace(one, value=math.asin(math.sqrt(min(1.0, one.value))))

    def value(self, level: float) -> float:
        return math.sin(min(max(level, 0.0), math.pi / 2)) ** 2

    def decided(self) -> None:
        """A new deployment begins with an empty cache."""
        self._from_s = math.nan
        self._bins.clear()


class SteadyRate(Signal):
    """Requests per second that follow no season."""

    settings = RATE
    of, figure, unit = "rate", "req_per_s", "requests/s"
    _LEAST_S = 60.0

    def __init__(self) -> None:
        self._begin_s: float | None = None
        self._requests = self._seconds = 0.0

    def add(self, look: Look) -> Bin | None:
        if look.arrived is None or not math.isfinite(look.arrived):
            return None
        begin_s = self._begin_s = look.at_s - look.seconds if self._begin_s is None else self._begin_s
        self._requests, self._seconds = self._requests + look.arrived, self._seconds + look.seconds
        if self._seconds < self._LEAST_S:
            return None
        count, seconds = self._requests + 0.5, self._seconds  # a half: no request has a logarithm too
        self._begin_s, self._requests, self._seconds = None, 0.0, 0.0
        return Bin(begin_s, look.at_s, seconds, math.log(count / seconds), 1 / count)


class SeasonalRate(Signal):
    """Requests per second against the same time before: the level is the logarithm of their ratio."""

    settings = SEASONAL_RATE
    of, figure, unit = "rate", "req_per_s", "requests/s"
    reference = 0.0

    def __init__(self) -> None:
        self._season, self._slots = Season(), Slots()
        self._offset = self._level = self._expected = 0.0
        self._slot: Bin | None = None

    def add(self, look: Look) -> Bin | None:
        if look.arrived is None or not math.isfinite(look.arrived):
            return None
        slot = self._slot = self._slots.add(look.at_s, look.seconds, look.arrived)
        if slot is None:
            return None
        expected = self._season.expected(slot.begin_s)
        if expected is None:
            self._season.learn(slot.begin_s, slot.value - self._offset)
            return None
        self._expected = expected
        return replace(slot, value=slot.value - expected)

    def value(self, level: float) -> float:
        """At the time of the last slot."""
        return math.exp(self._expected + level)

    def settled(self, away: float | None) -> None:
        """What is away from its reference is no season to compare with."""
        self._level = self._offset if away is None else away
        if self._slot is not None and away is None:
            self._season.learn(self._slot.begin_s, self._slot.value - self._offset)

    def decided(self) -> None:
        """The season goes on, at another level."""
        self._offset = self._level
