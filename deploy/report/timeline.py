"""What a page about a watched deployment shows: how it held its SLO, what served when, and what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SeenPoint:
    """What came of one deployment in the ``seconds`` before ``at_s``; ``shares`` are of its requests within each
    target, from 0 to 1. None: nobody counted."""

    deployment: str
    at_s: float
    seconds: float
    arrived: float | None
    failed: float | None
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServedSpan:
    """A deployment: when it was ordered, from when on it had traffic, and until when. None: not yet, or never."""

    name: str
    layout: str
    ordered_s: float
    serving_s: float | None
    ended_s: float | None
    state: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened."""

    at_s: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """All of it; ``required`` are the shares that targets ask for. Times in s since 1970; ``facts`` are (label, value)
    pairs, ``notes`` sentences that a reader has to know."""

    study: str
    points: tuple[SeenPoint, ...]
    spans: tuple[ServedSpan, ...]
    marks: tuple[Mark, ...]
    required: Mapping[str, float]
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def begin_s(self) -> float:
        """When the first thing of it was, s since 1970."""
        starts = [point.at_s - point.seconds for point in self.points] + [span.ordered_s for span in self.spans]
        return min([*starts, *(mark.at_s for mark in self.marks)], default=0.0)

    @property
    def end_s(self) -> float:
        """When the last thing of it was."""
        ends = [point.at_s for point in self.points] + [span.ended_s or span.ordered_s for span in self.spans]
        return max([*ends, *(mark.at_s for mark in self.marks)], default=0.0)
