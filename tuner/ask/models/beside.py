"""Mixers side by side in one layer, their outputs added up (Falcon-H1: attention and a state space)."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.models.blocks import Mixer
from tuner.ask.models.cache import Cache, State
from tuner.ask.models.matrices import NO_VECTORS, Matrix, Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside(Mixer):
    """``mixers`` that read the same input; each ends in an all-reduce of its own."""

    mixers: tuple[Mixer, ...]

    @property
    def kind(self) -> str:
        """Those of its parts."""
        return " beside ".join(one.kind for one in self.mixers)

    @property
    def parts(self) -> tuple[Mixer, ...]:
        """Each of them."""
        return self.mixers

    @property
    def reductions(self) -> int:
        """Of all of them."""
        return sum(one.reductions for one in self.mixers)

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """All of them."""
        return tuple(matrix for one in self.mixers for matrix in one.matrices(hidden))

    def vectors(self, hidden: int) -> Vectors:
        """All of them."""
        return sum((one.vectors(hidden) for one in self.mixers), NO_VECTORS)

    @property
    def caches(self) -> tuple[Cache, ...]:
        """All of them."""
        return tuple(cache for one in self.mixers for cache in one.caches)

    @property
    def state(self) -> State | None:
        """All of them in one."""
        pieces = tuple(piece for one in self.mixers if one.state is not None for piece in one.state.pieces)
        return State(pieces) if pieces else None

    def refuses(self, ranks: int) -> str | None:
        """What the first of them says that does not divide."""
        return next((said for one in self.mixers if (said := one.refuses(ranks))), None)
