"""A step of one replica, and the named terms of its time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.cost.volume import Phase

Floats = NDArray[np.float64]
Terms = dict[str, Floats]


def total(terms: Mapping[str, Floats]) -> Floats:
    """Sum of all terms, in ms."""
    found = np.zeros(1)
    for value in terms.values():
        found = found + value
    return found


@dataclass(frozen=True, slots=True, eq=False)
class StepShape:
    """A step of one replica: new tokens per sequence, tokens already in its cache, and sequences (arrays or scalars).

    Compared by identity: layer costs are cached per step object.
    """

    phase: Phase
    new_tokens: Floats
    context_tokens: Floats
    sequences: Floats

    @property
    def tokens(self) -> Floats:
        """New tokens over all sequences."""
        return np.asarray(self.new_tokens * self.sequences, dtype=float)
