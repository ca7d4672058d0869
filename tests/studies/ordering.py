"""What a study reports, as something that holds or does not hold under the cost model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Finding:
    """Does it hold, and by which figures (with their units)?"""

    holds: bool
    figures: str


@dataclass(frozen=True, slots=True)
class Ordering:
    """One claim of a study. ``gap`` says why the model does not reproduce it, where it does not."""

    study: str
    claim: str
    check: Callable[[], Finding]
    gap: str | None = None


def rising(values: Sequence[float]) -> bool:
    """Each value above the one before it."""
    return all(after > before for before, after in pairwise(values))


def falling(values: Sequence[float]) -> bool:
    """Each value below the one before it."""
    return all(after < before for before, after in pairwise(values))


def shown(values: Mapping[str, float], unit: str, digits: int = 2) -> str:
    """``tp=1 3.38, tp=2 2.70 ms``."""
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in values.items()) + f" {unit}"
