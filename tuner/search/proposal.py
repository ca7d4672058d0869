"""What a search proposes."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.layout import ParallelLayout
from tuner.trial.results import Purpose


@dataclass(frozen=True, slots=True)
class Proposal:
    """The next layout to launch, and why it is its turn. ``repeat`` counts the earlier trials of the layout."""

    layout: ParallelLayout
    why: str
    purpose: Purpose = Purpose.EXPLORE
    repeat: int = 0
