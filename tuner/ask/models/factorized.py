"""Multi-matrix factorization attention (Step-3, arXiv 2507.19427): one key and value for all heads, queries of low rank
(vLLM ``models/step3_text.py``)."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.models.blocks import Mixer
from tuner.ask.models.cache import Cache
from tuner.ask.models.matrices import Cut, Layer, Matrix, Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorizedAttention(Mixer):
    """``heads`` of ``head_dim`` made of ``rank`` numbers that all of them share."""

    heads: int
    head_dim: int
    rank: int
    place: str = "self_attn"

    @property
    def kind(self) -> str:
        """As its authors call it."""
        return "multi-matrix factorization attention"

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """What is shared, whole on every rank; queries of heads; the output."""
        kind, wide = Layer.ATTENTION, self.heads * self.head_dim

        def shared(name: str, outputs: int) -> Matrix:
            names = (f"{self.place}.{name}", f"{self.place}.qkv_proj")
            return Matrix(kind, names, outputs, hidden, Cut.NOTHING, "qkv_proj")

        return (
            shared("q_proj", self.rank),
            shared("k_proj", self.head_dim),
            shared("v_proj", self.head_dim),
            Matrix(kind, (f"{self.place}.wq",), wide, self.rank, Cut.OUTPUTS),
            Matrix(kind, (f"{self.place}.o_proj",), hidden, wide, Cut.INPUTS),
        )

    def vectors(self, hidden: int) -> Vectors:
        """A norm of what queries share."""
        return Vectors(whole=self.rank)

    @property
    def caches(self) -> tuple[Cache, ...]:
        """One key and one value, whole on every rank."""
        return (Cache(heads=1, width=2 * self.head_dim),)

    def refuses(self, ranks: int) -> str | None:
        """Heads divide by the ranks."""
        return f"{self.heads} attention heads do not divide by tp={ranks}" if self.heads % ranks else None
