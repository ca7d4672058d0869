"""What the search believes, as a page shows it."""

from __future__ import annotations

from dataclasses import dataclass

ShownRange = tuple[float | None, float | None, float | None]


@dataclass(frozen=True, slots=True)
class ShownBelief:
    """One candidate: the probabilities (0 to 1) that it beats the best measured layout and that it meets the SLO, its
    latency ÷ target, and its value on the objective's axis. Ranges are 5 %, median and 95 %; None where it carries no
    such rate, or where the objective is a price."""

    layout: str
    devices: int
    wins: float
    meets: float
    of_target: ShownRange
    objective: ShownRange | None


@dataclass(frozen=True, slots=True)
class ShownBeliefs:
    """``rows`` may still be launched, the likeliest winners first; ``left`` counts those that are not listed too.
    ``best`` is what is believed of the best measured layout, ``axis`` what the objective's axis shows."""

    rows: tuple[ShownBelief, ...]
    left: int
    could_win: int
    anything: float
    best: ShownBelief | None
    axis: str | None
