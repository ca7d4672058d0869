"""What a workload is made of, as series whose level can be tested: of each look, what it says of one of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

from tuner.retune.detect.bins import Bins, BinSize, as_logarithm
from tuner.retune.detect.levels import WEEK_S, Bin, LevelSettings
from tuner.retune.detect.season import Season, Slots
from tuner.retune.seen import Look, Tokens

# A tenth of prompt or answer lengths more or less is worth no word, nor are a quarter of the rate and an eighth of the
# prompt tokens that a cache holds. How far each wanders within a day or week that has not been seen, as a deviation.
LENGTHS = LevelSettings(least_change=math.log(1.2), wander=0.1)
RATE = LevelSettings(least_change=math.log(1.25), wander=0.1)
SEASONAL_RATE = replace(RATE, season_s=WEEK_S)
PREFIX = LevelSettings(least_change=0.125, wander=0.1)
_WARM_S = 900.0  # in which a cache that was empty fills
_CV = 1.0  # deviation ÷ mean of lengths, where the engine does not tell: that of an exponential distribution


class Signal(Protocol):
    """One part of a workload."""

    name: str
    unit: str  # of what the signal is told in, as figures have it in their names
    settings: LevelSettings

    def add(self, look: Look) -> Bin | None:
        """What a look says; the bin that ends with it, if one does."""

    def figures(self, reference: float, level: float) -> tuple[float, float]:
        """What the level was and is, in ``unit``."""

    def settled(self, departed: bool, level: float | None) -> None:
        """What became of the last bin: whether the signal is away from its reference, and its level."""

    def decided(self) -> None:
        """The present level is the reference."""


class Lengths:
    """Tokens per request, of prompts or of answers, as logarithms of their means."""

    settings = LENGTHS
    unit = "tokens"

    def __init__(self, of: str, size: BinSize) -> None:
        self.name, self._of, self._bins = f"{of} tokens", of, Bins(size)

    def add(self, look: Look) -> Bin | None:
        tokens: Tokens | None = look.prompt if self._of == "prompt" else look.output
        if tokens is None or not (tokens.mean > 0 and math.isfinite(tokens.mean)):
            return None
        sd = _CV * tokens.mean if tokens.sd is None else tokens.sd
        one = self._bins.add(look.at_s, look.seconds, tokens.requests, tokens.mean, sd * sd)
        return one and as_logarithm(one)

    def figures(self, reference: float, level: float) -> tuple[float, float]:
        return math.exp(reference), math.exp(level)

    def settled(self, departed: bool, level: float | None) -> None:
        """Nothing depends on it."""

    def decided(self) -> None:
        """Nothing depends on it."""


class PrefixShare:
    """The part of prompt tokens that a cache held, as arc sine of its root: its scatter is alike everywhere."""

    settings = PREFIX
    unit = "share"
    name = "prefix share"

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

    def figures(self, reference: float, level: float) -> tuple[float, float]:
        before, now = (math.sin(min(max(x, 0.0), math.pi / 2)) ** 2 for x in (reference, level))
        return before, now

    def settled(self, departed: bool, level: float | None) -> None:
        """Nothing depends on it."""

    def decided(self) -> None:
        """A new deployment begins with an empty cache."""
        self._from_s = math.nan
        self._bins.clear()


class SteadyRate:
    """Requests per second that follow no season, as a logarithm."""

    settings = RATE
    unit = "req_per_s"
    name = "rate"
    _SIZE = BinSize(0.0, 60.0)

    def __init__(self) -> None:
        self._begin_s: float | None = None
        self._requests = self._seconds = 0.0

    def add(self, look: Look) -> Bin | None:
        if look.arrived is None:
            return None
        if self._begin_s is None:
            self._begin_s = look.at_s - look.seconds
        self._requests, self._seconds = self._requests + look.arrived, self._seconds + look.seconds
        if self._seconds < self._SIZE.seconds:
            return None
        count = self._requests + 0.5
        one = Bin(self._begin_s, look.at_s, self._seconds, math.log(count / self._seconds), 1 / count)
        self._begin_s, self._requests, self._seconds = None, 0.0, 0.0
        return one

    def figures(self, reference: float, level: float) -> tuple[float, float]:
        return math.exp(reference), math.exp(level)

    def settled(self, departed: bool, level: float | None) -> None:
        """Nothing depends on it."""

    def decided(self) -> None:
        """Nothing depends on it."""


class SeasonalRate:
    """Requests per second against the same time before, as the logarithm of their ratio; its reference is 0."""

    settings = SEASONAL_RATE
    unit = "req_per_s"
    name = "rate"

    def __init__(self) -> None:
        self._season, self._slots = Season(), Slots()
        self._offset = self._level = 0.0
        self._slot: Bin | None = None
        self._expected = 0.0

    def add(self, look: Look) -> Bin | None:
        if look.arrived is None:
            return None
        self._slot = self._slots.add(look.at_s, look.seconds, look.arrived)
        if self._slot is None:
            return None
        expected = self._season.expected(self._slot.begin_s)
        if expected is None:
            self._season.learn(self._slot.begin_s, self._slot.value - self._offset)
            return None
        self._expected = expected
        return replace(self._slot, value=self._slot.value - expected)

    def settled(self, departed: bool, level: float | None) -> None:
        """What is away from its reference is no season to compare with."""
        self._level = level if departed and level is not None else self._offset
        if self._slot is not None and not departed:
            self._season.learn(self._slot.begin_s, self._slot.value - self._offset)

    def figures(self, reference: float, level: float) -> tuple[float, float]:
        return math.exp(self._expected + reference), math.exp(self._expected + level)

    def decided(self) -> None:
        self._offset = self._level
